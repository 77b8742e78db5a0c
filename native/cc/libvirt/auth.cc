#include "auth.h"

#include <cstring>
#include <utility>

namespace vmferry::libvirt {

namespace {

struct Request {
  int type;
  std::string prompt;
  std::string challenge;
  std::string suggestion;
};

std::string TextOf(const char* text) { return text == nullptr ? "" : text; }

Napi::Value ToValue(Napi::Env env, const std::vector<Request>& requests) {
  Napi::Array list = Napi::Array::New(env, requests.size());
  for (uint32_t i = 0; i < requests.size(); i++) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", requests[i].type);
    object.Set("prompt", requests[i].prompt);
    object.Set("challenge", requests[i].challenge);
    object.Set("suggestion", requests[i].suggestion);
    list.Set(i, object);
  }
  return list;
}

}  // namespace

virConnectAuthPtr Authentication::ForLibvirt() {
  auth_.credtype = types_.data();
  auth_.ncredtype = static_cast<unsigned int>(types_.size());
  auth_.cb = OnRequest;
  auth_.cbdata = this;
  return &auth_;
}

void Authentication::Cancel() {
  const std::lock_guard<std::mutex> lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

int Authentication::OnRequest(virConnectCredentialPtr requests, unsigned int count, void* self) {
  try {
    return static_cast<Authentication*>(self)->Ask(requests, count);
  } catch (...) {
    return -1;
  }
}

int Authentication::Ask(virConnectCredentialPtr requests, unsigned int count) {
  std::vector<Request> asked;
  for (unsigned int i = 0; i < count; i++) {
    const virConnectCredential& request = requests[i];
    asked.push_back({request.type, TextOf(request.prompt), TextOf(request.challenge), TextOf(request.defresult)});
  }
  std::unique_lock<std::mutex> lock(mutex_);
  answered_ = false;
  const uint64_t question = ++question_;
  mailbox_->Post({address_, Product([self = shared_from_this(), asked = std::move(asked), question](Napi::Env env) {
                    const auto respond = [self, question](const Napi::CallbackInfo& info) {
                      Answers answers;
                      if (info[0].IsArray()) {
                        const Napi::Array list = info[0].As<Napi::Array>();
                        answers.emplace();
                        for (uint32_t i = 0; i < list.Length(); i++) {
                          answers->push_back(list.Get(i).ToString().Utf8Value());
                        }
                      }
                      self->Answer(question, std::move(answers));
                    };
                    Napi::Array pair = Napi::Array::New(env, 2);
                    pair.Set(0U, ToValue(env, asked));
                    pair.Set(1U, Napi::Function::New(env, respond, "respond"));
                    return pair.As<Napi::Value>();
                  })});
  changed_.wait(lock, [&] { return answered_ || cancelled_; });
  if (!answered_ || !answers_ || answers_->size() != count) return -1;
  for (unsigned int i = 0; i < count; i++) {
    const std::string& answer = (*answers_)[i];
    // libvirt frees it, and counts its length without the end.
    requests[i].result = strdup(answer.c_str());
    requests[i].resultlen = static_cast<unsigned int>(std::strlen(answer.c_str()));
    if (requests[i].result == nullptr) return -1;
  }
  return 0;
}

void Authentication::Answer(uint64_t question, Answers answers) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (question != question_ || answered_) return;
  answers_ = std::move(answers);
  answered_ = true;
  changed_.notify_all();
}

}  // namespace vmferry::libvirt

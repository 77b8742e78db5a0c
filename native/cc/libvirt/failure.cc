#include "failure.h"

namespace vmferry::libvirt {

namespace {

std::string TextOf(const char* text) { return text == nullptr ? "" : text; }

}  // namespace

Failure Failure::Of(Code code, const char* message) {
  Failure failure;
  failure.code = code;
  failure.message = message;
  return failure;
}

Napi::Value Failure::ToValue(Napi::Env env) const {
  Napi::Object object = Napi::Object::New(env);
  object.Set("code", static_cast<double>(code));
  object.Set("message", message);
  object.Set("call", call);
  object.Set("number", number);
  object.Set("domain", domain);
  object.Set("level", level);
  Napi::Array list = Napi::Array::New(env, details.size());
  for (uint32_t i = 0; i < details.size(); i++) list.Set(i, details[i]);
  object.Set("details", list);
  return object;
}

void ThrowLast(const char* call) {
  Failure failure;
  failure.call = call;
  const virErrorPtr error = Lib().virGetLastError();
  if (error == nullptr) {
    failure.message = "failed and did not say why";
    failure.number = VIR_ERR_INTERNAL_ERROR;
    failure.level = VIR_ERR_ERROR;
  } else {
    failure.message = TextOf(error->message);
    failure.number = error->code;
    failure.domain = error->domain;
    failure.level = error->level;
    failure.details = {TextOf(error->str1), TextOf(error->str2), TextOf(error->str3)};
    Lib().virResetLastError();
  }
  throw failure;
}

}  // namespace vmferry::libvirt

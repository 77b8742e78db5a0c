// Credentials that a connection asks for while it is opened: libvirt's thread waits for JavaScript's answers.
#pragma once

#include <napi.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "library.h"
#include "mailbox.h"

namespace vmferry::libvirt {

class Authentication : public std::enable_shared_from_this<Authentication> {
 public:
  // `types`: which kinds of credentials JavaScript can give. The function at `address` gets [requests, respond].
  Authentication(std::vector<int> types, std::shared_ptr<Mailbox> mailbox, uint64_t address)
      : types_(std::move(types)), mailbox_(std::move(mailbox)), address_(address) {}

  // For virConnectOpenAuth, as long as this lives.
  virConnectAuthPtr ForLibvirt();
  // From now on every question is answered with no. Any thread.
  void Cancel();

 private:
  // One text for each request, or nothing: no credentials.
  using Answers = std::optional<std::vector<std::string>>;

  static int OnRequest(virConnectCredentialPtr requests, unsigned int count, void* self);
  int Ask(virConnectCredentialPtr requests, unsigned int count);
  void Answer(uint64_t question, Answers answers);

  std::vector<int> types_;
  std::shared_ptr<Mailbox> mailbox_;
  uint64_t address_;
  virConnectAuth auth_{};

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t question_ = 0;
  bool answered_ = false;
  bool cancelled_ = false;
  Answers answers_;
};

}  // namespace vmferry::libvirt

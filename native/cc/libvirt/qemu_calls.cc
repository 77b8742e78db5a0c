// QEMU's monitor and the guest agent, past libvirt.
#include <string>
#include <utility>

#include "binding.h"
#include "calls.h"

namespace vmferry::libvirt {

namespace {

void NeedQemu(bool there) {
  if (!there) throw Failure::Of(Code::Missing, "libvirt-qemu is not on this host: install the rest of libvirt0");
}

}  // namespace

void ExportQemuCalls(Napi::Object table) {
  // A QEMU that hears nobody any more, or a guest, may take its time.
  DomainCall(
      table, "monitorCommand",
      [](Arguments& a) -> OnDomain {
        const std::string command = a.Text();
        return [command, flags = a.U32()](virDomainPtr d) {
          NeedQemu(Lib().virDomainQemuMonitorCommand != nullptr);
          char* answer = nullptr;
          VIRT(virDomainQemuMonitorCommand, d, command.c_str(), &answer, flags);
          return OwnText(answer);
        };
      },
      On::OwnThread);
  DomainCall(
      table, "agentCommand",
      [](Arguments& a) -> OnDomain {
        const std::string command = a.Text();
        return [command, seconds = a.I32()](virDomainPtr d) {
          NeedQemu(Lib().virDomainQemuAgentCommand != nullptr);
          return OwnText(VIRT(virDomainQemuAgentCommand, d, command.c_str(), seconds, 0));
        };
      },
      On::OwnThread);
}

}  // namespace vmferry::libvirt

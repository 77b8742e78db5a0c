// Subscriptions to events. libvirt calls back on its event loop's thread; what it lends is copied there.
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "binding.h"
#include "calls.h"
#include "handle.h"
#include "typed_parameters.h"

namespace vmferry::libvirt {

namespace {

// The event's own values; the domain is set for all of them.
using Fill = std::function<void(Napi::Env, Napi::Object)>;

// What libvirt calls must not throw: an event for which there is no memory is lost.
template <typename Make>
void Post(void* subscriber, virDomainPtr domain, Make make) {
  try {
    const auto& to = *static_cast<Subscriber*>(subscriber);
    to.mailbox->Post({to.address, Product([name = DomainName(domain), fill = Fill(make())](Napi::Env env) {
                        Napi::Object object = Napi::Object::New(env);
                        object.Set("domain", name.ToValue(env));
                        fill(env, object);
                        return object.As<Napi::Value>();
                      })});
  } catch (const std::bad_alloc&) {
  }
}

void OnLifecycle(virConnectPtr, virDomainPtr domain, int event, int detail, void* to) {
  Post(to, domain, [=] {
    return [=](Napi::Env, Napi::Object object) {
      object.Set("event", event);
      object.Set("detail", detail);
    };
  });
}

void OnDevice(virConnectPtr, virDomainPtr domain, const char* alias, void* to) {
  Post(to, domain, [=] {
    return [device = std::string(alias)](Napi::Env, Napi::Object object) { object.Set("device", device); };
  });
}

void OnIteration(virConnectPtr, virDomainPtr domain, int iteration, void* to) {
  Post(to, domain, [=] {
    return [=](Napi::Env, Napi::Object object) { object.Set("iteration", iteration); };
  });
}

void OnJobCompleted(virConnectPtr, virDomainPtr domain, virTypedParameterPtr list, int count, void* to) {
  Post(to, domain, [=] {
    return [copy = TypedParameters::CopyOf(list, count)](Napi::Env env, Napi::Object object) {
      object.Set("statistics", copy->ToValue(env));
    };
  });
}

void OnAgent(virConnectPtr, virDomainPtr domain, int state, int reason, void* to) {
  Post(to, domain, [=] {
    return [=](Napi::Env, Napi::Object object) {
      object.Set("state", state);
      object.Set("reason", reason);
    };
  });
}

void OnMonitor(virConnectPtr, virDomainPtr domain, const char* event, long long seconds, unsigned int microseconds,
               const char* details, void* to) {
  Post(to, domain, [=] {
    return [name = std::string(event), seconds, microseconds,
            data = std::string(details == nullptr ? "" : details)](Napi::Env env, Napi::Object object) {
      object.Set("event", name);
      object.Set("seconds", Napi::BigInt::New(env, static_cast<int64_t>(seconds)));
      object.Set("microseconds", microseconds);
      object.Set("details", data);
    };
  });
}

// By virDomainEventID; null where there is no such event here.
virConnectDomainEventGenericCallback CallbackOf(uint32_t event) {
  switch (event) {
    case VIR_DOMAIN_EVENT_ID_LIFECYCLE:
      return VIR_DOMAIN_EVENT_CALLBACK(OnLifecycle);
    case VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED:
    case VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED:
      return VIR_DOMAIN_EVENT_CALLBACK(OnDevice);
    case VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE:
      return VIR_DOMAIN_EVENT_CALLBACK(OnAgent);
    case VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION:
      return VIR_DOMAIN_EVENT_CALLBACK(OnIteration);
    case VIR_DOMAIN_EVENT_ID_JOB_COMPLETED:
      return VIR_DOMAIN_EVENT_CALLBACK(OnJobCompleted);
    default:
      return nullptr;
  }
}

// QEMU's own events, by a pattern for their names.
struct MonitorEvents {
  std::shared_ptr<const std::string> pattern;
  uint32_t flags;
};

int Register(virConnectPtr connection, virDomainPtr domain, uint32_t event, Subscriber* to) {
  return VIRT(virConnectDomainEventRegisterAny, connection, domain, static_cast<int>(event), CallbackOf(event), to,
              Subscriber::Free);
}

int Register(virConnectPtr connection, virDomainPtr domain, const MonitorEvents& events, Subscriber* to) {
  if (Lib().virConnectDomainQemuMonitorEventRegister == nullptr) {
    throw Failure::Of(Code::Missing, "libvirt-qemu is not on this host: install the rest of libvirt0");
  }
  return VIRT(virConnectDomainQemuMonitorEventRegister, connection, domain, OrNull(events.pattern), OnMonitor, to,
              Subscriber::Free, events.flags);
}

template <typename Events>
void Subscribe(const Napi::CallbackInfo& info, Arguments& arguments, const Events& events,
               Registration::Deregister deregister) {
  const std::shared_ptr<Connection> connection = arguments.connection();
  const Napi::Value about = arguments.Any();
  const DomainRef domain = about.IsUndefined() ? nullptr : arguments.DomainOf(about);
  const Napi::Function on_event = arguments.Function();
  const Napi::Function settle_function = arguments.Function();
  Desk& desk = Desk::Of(info.Env());
  const uint64_t address = desk.Expect(on_event, Desk::Kind::Events);
  const uint64_t settle = desk.Expect(settle_function, Desk::Kind::Call);
  desk.ForgetWith(settle, address, Desk::When::Failed);

  const auto work = [connection, ref = connection->Ref(), domain, events, deregister, address,
                     mailbox = desk.mailbox()]() -> Product {
    auto to = std::make_unique<Subscriber>(Subscriber{mailbox, address});
    const int id = Register(ref.get(), domain.get(), events, to.get());
    [[maybe_unused]] Subscriber* const given = to.release();
    const auto box = std::make_shared<std::shared_ptr<Registration>>(
        std::make_shared<Registration>(ref, deregister, id, address));
    return [connection, box](Napi::Env env) -> Napi::Value {
      if (!connection->closed()) return Napi::Number::New(env, connection->Subscribe(std::move(*box)));
      // Closed while the call was under way.
      GiveBack(connection->pool(), std::move(*box));
      throw Failure::Of(Code::Closed, "the connection is closed");
    };
  };
  try {
    connection->pool().Run(Answering(desk.mailbox(), settle, work));
  } catch (const std::system_error& error) {
    desk.Fail(settle);
    Throw(info.Env(), Code::System, "no thread could be started", error.code().value());
  }
}

// subscribe(connection, event, domain | undefined, onEvent, settle): the value is a number for unsubscribe()
void SubscribeDomain(const Napi::CallbackInfo& info) {
  Arguments arguments = Arguments::OnConnection(info);
  const uint32_t event = arguments.U32();
  if (CallbackOf(event) == nullptr) Throw(info.Env(), Code::Bounds, "there is no such event");
  Subscribe(info, arguments, event, Lib().virConnectDomainEventDeregisterAny);
}

// subscribeMonitor(connection, pattern | undefined, flags, domain | undefined, onEvent, settle)
void SubscribeMonitor(const Napi::CallbackInfo& info) {
  Arguments arguments = Arguments::OnConnection(info);
  const auto pattern = arguments.MaybeText();
  Subscribe(info, arguments, MonitorEvents{pattern, arguments.U32()}, Lib().virConnectDomainQemuMonitorEventDeregister);
}

// unsubscribe(connection, number, settle)
void Unsubscribe(const Napi::CallbackInfo& info) {
  Arguments arguments = Arguments::OnConnection(info);
  const uint32_t number = arguments.U32();
  Desk& desk = Desk::Of(info.Env());
  const uint64_t settle = desk.Expect(arguments.Function(), Desk::Kind::Call);
  if (arguments.connection()->Unsubscribe(number, settle)) return;
  desk.Forget(settle);
  Throw(info.Env(), Code::Bounds, "there is no such subscription");
}

}  // namespace

void ExportEvents(Napi::Env env, Napi::Object table) {
  table.Set("subscribe", Napi::Function::New<SubscribeDomain>(env, "subscribe"));
  table.Set("subscribeMonitor", Napi::Function::New<SubscribeMonitor>(env, "subscribeMonitor"));
  table.Set("unsubscribe", Napi::Function::New<Unsubscribe>(env, "unsubscribe"));
}

}  // namespace vmferry::libvirt

// Migration, and what steers one that is under way.
#include <string>
#include <utility>

#include "binding.h"
#include "calls.h"
#include "typed_parameters.h"

namespace vmferry::libvirt {

namespace {

Product ToUri(virDomainPtr domain, const char* uri, const TypedParameters& parameters, unsigned int flags) {
  VIRT(virDomainMigrateToURI3, domain, uri, parameters.list, static_cast<unsigned int>(parameters.count), flags);
  return Nothing();
}

}  // namespace

void ExportMigrationCalls(Napi::Object table) {
  // Both last as long as the migration does.
  DomainCall(
      table, "migrateToUri",
      [](Arguments& a) -> OnDomain {
        const auto uri = a.MaybeText();
        const auto parameters = TypedParameters::Of(a.Any());
        return [uri, parameters, flags = a.U32()](virDomainPtr d) { return ToUri(d, OrNull(uri), *parameters, flags); };
      },
      On::OwnThread);
  DomainCall(
      table, "migrate",
      [](Arguments& a) -> OnDomain {
        const std::shared_ptr<Connection> to = a.OneConnection();
        const auto parameters = TypedParameters::Of(a.Any());
        return [to, ref = to->Ref(), parameters, flags = a.U32()](virDomainPtr d) {
          return OwnDomain(to, VIRT(virDomainMigrate3, d, ref.get(), parameters->list,
                                    static_cast<unsigned int>(parameters->count), flags));
        };
      },
      On::OwnThread);
  DomainCall(table, "startPostCopy", [](Arguments&) -> OnDomain {
    return [](virDomainPtr d) {
      VIRT(virDomainMigrateStartPostCopy, d, 0);
      return Nothing();
    };
  });
  DomainCall(table, "maxDowntime", [](Arguments&) -> OnDomain {
    return [](virDomainPtr d) {
      unsigned long long milliseconds = 0;
      VIRT(virDomainMigrateGetMaxDowntime, d, &milliseconds, 0);
      return Big(milliseconds);
    };
  });
  DomainCall(table, "setMaxDowntime", [](Arguments& a) -> OnDomain {
    return [milliseconds = a.U64()](virDomainPtr d) {
      VIRT(virDomainMigrateSetMaxDowntime, d, milliseconds, 0);
      return Nothing();
    };
  });
  DomainCall(table, "maxSpeed", [](Arguments& a) -> OnDomain {
    return [flags = a.U32()](virDomainPtr d) {
      unsigned long mib_per_second = 0;
      VIRT(virDomainMigrateGetMaxSpeed, d, &mib_per_second, flags);
      return Big(mib_per_second);
    };
  });
  DomainCall(table, "setMaxSpeed", [](Arguments& a) -> OnDomain {
    const uint64_t mib_per_second = a.U64();
    return [mib_per_second, flags = a.U32()](virDomainPtr d) {
      VIRT(virDomainMigrateSetMaxSpeed, d, mib_per_second, flags);
      return Nothing();
    };
  });
  DomainCall(table, "compressionCache", [](Arguments&) -> OnDomain {
    return [](virDomainPtr d) {
      unsigned long long bytes = 0;
      VIRT(virDomainMigrateGetCompressionCache, d, &bytes, 0);
      return Big(bytes);
    };
  });
  DomainCall(table, "setCompressionCache", [](Arguments& a) -> OnDomain {
    return [bytes = a.U64()](virDomainPtr d) {
      VIRT(virDomainMigrateSetCompressionCache, d, bytes, 0);
      return Nothing();
    };
  });
}

}  // namespace vmferry::libvirt

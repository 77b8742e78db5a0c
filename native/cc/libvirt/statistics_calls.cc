// What libvirt measures: domain statistics, the dirty rate, jobs.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../arguments.h"
#include "binding.h"
#include "calls.h"
#include "typed_parameters.h"

namespace vmferry::libvirt {

namespace {

struct Record {
  DomainName domain;
  std::shared_ptr<TypedParameters> statistics;
};

// Copied: a record holds a reference on its domain, which must not be given back on the event loop.
Product Records(virDomainStatsRecordPtr* list) {
  std::vector<Record> records;
  for (virDomainStatsRecordPtr* each = list; *each != nullptr; each++) {
    records.push_back({DomainName((*each)->dom), TypedParameters::CopyOf((*each)->params, (*each)->nparams)});
  }
  Lib().virDomainStatsRecordListFree(list);
  return [records = std::move(records)](Napi::Env env) {
    Napi::Array array = Napi::Array::New(env, records.size());
    for (uint32_t i = 0; i < records.size(); i++) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("domain", records[i].domain.ToValue(env));
      object.Set("statistics", records[i].statistics->ToValue(env));
      array.Set(i, object);
    }
    return array.As<Napi::Value>();
  };
}

Product JobInfo(virDomainPtr domain) {
  virDomainJobInfo info{};
  VIRT(virDomainGetJobInfo, domain, &info);
  return [info](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    const auto set = [&](const char* name, unsigned long long value) {
      object.Set(name, Napi::BigInt::New(env, static_cast<uint64_t>(value)));
    };
    object.Set("type", info.type);
    set("timeElapsedMs", info.timeElapsed);
    set("timeRemainingMs", info.timeRemaining);
    set("dataTotalBytes", info.dataTotal);
    set("dataProcessedBytes", info.dataProcessed);
    set("dataRemainingBytes", info.dataRemaining);
    set("memoryTotalBytes", info.memTotal);
    set("memoryProcessedBytes", info.memProcessed);
    set("memoryRemainingBytes", info.memRemaining);
    set("fileTotalBytes", info.fileTotal);
    set("fileProcessedBytes", info.fileProcessed);
    set("fileRemainingBytes", info.fileRemaining);
    return object.As<Napi::Value>();
  };
}

Product JobStatistics(virDomainPtr domain, unsigned int flags) {
  int type = 0;
  auto parameters = std::make_shared<TypedParameters>();
  VIRT(virDomainGetJobStats, domain, &type, &parameters->list, &parameters->count, flags);
  return [type, parameters](Napi::Env env) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("type", type);
    object.Set("statistics", parameters->ToValue(env));
    return object.As<Napi::Value>();
  };
}

Product AbortJob(virDomainPtr domain, unsigned int flags) {
  if (flags == 0) {
    VIRT(virDomainAbortJob, domain);
  } else if (Lib().virDomainAbortJobFlags == nullptr) {
    throw Failure::Of(Code::Missing, "aborting a job with flags needs libvirt 8.5 or newer");
  } else {
    VIRT(virDomainAbortJobFlags, domain, flags);
  }
  return Nothing();
}

}  // namespace

void ExportStatisticsCalls(Napi::Object table) {
  ConnectionCall(table, "allStatistics", [](Arguments& a) -> OnConnection {
    const uint32_t groups = a.U32();
    return [groups, flags = a.U32()](virConnectPtr c) {
      virDomainStatsRecordPtr* records = nullptr;
      VIRT(virConnectGetAllDomainStats, c, groups, &records, flags);
      return Records(records);
    };
  });
  // statistics(connection, domains, groups, flags, settle); the domains must be of this connection
  ConnectionCall(table, "statistics", [](Arguments& a) -> OnConnection {
    const Napi::Value value = a.Any();
    if (!value.IsArray()) Throw(a.env(), Code::Bounds, "domains must be an array");
    const Napi::Array list = value.As<Napi::Array>();
    std::vector<DomainRef> domains;
    for (uint32_t i = 0; i < list.Length(); i++) domains.push_back(a.DomainOf(list.Get(i)));
    const uint32_t groups = a.U32();
    return [domains = std::move(domains), groups, flags = a.U32()](virConnectPtr) {
      // Ends with a null.
      std::vector<virDomainPtr> pointers;
      for (const DomainRef& domain : domains) pointers.push_back(domain.get());
      pointers.push_back(nullptr);
      virDomainStatsRecordPtr* records = nullptr;
      VIRT(virDomainListGetStats, pointers.data(), groups, &records, flags);
      return Records(records);
    };
  });
  DomainCall(table, "startDirtyRate", [](Arguments& a) -> OnDomain {
    const int32_t seconds = a.I32();
    return [seconds, flags = a.U32()](virDomainPtr d) {
      VIRT(virDomainStartDirtyRateCalc, d, seconds, flags);
      return Nothing();
    };
  });
  DomainCall(table, "jobInfo", [](Arguments&) -> OnDomain { return JobInfo; });
  DomainCall(table, "jobStatistics", [](Arguments& a) -> OnDomain {
    return [flags = a.U32()](virDomainPtr d) { return JobStatistics(d, flags); };
  });
  DomainCall(table, "abortJob", [](Arguments& a) -> OnDomain {
    return [flags = a.U32()](virDomainPtr d) { return AbortJob(d, flags); };
  });
}

}  // namespace vmferry::libvirt

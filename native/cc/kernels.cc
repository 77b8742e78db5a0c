#include "kernels.h"

#include "arguments.h"
#include "instance.h"
#include "page_codec.h"
#include "page_scan.h"

namespace vmferry {
namespace {

Codec CodecOf(const Napi::Value& value, Codec last) {
  const uint32_t number = U32Of(value, "codec must be a codec's number");
  if (number > static_cast<uint32_t>(last)) Throw(value.Env(), Code::Bounds, "no such codec");
  return static_cast<Codec>(number);
}

// pack(src, dst, codec, settle)
void PackJob(const Napi::CallbackInfo& info) {
  const Bytes src = BytesOf(info[0], "src must be a Uint8Array");
  const Bytes dst = BytesOf(info[1], "dst must be a Uint8Array");
  const Codec codec = CodecOf(info[2], Codec::Lz4Hc);
  const Napi::Function settle = FunctionOf(info[3], "settle must be a function");
  Instance::Of(info.Env()).jobs.Run(info[0], info[1], settle, [=] { return Pack(src, dst, codec); });
}

// unpack(src, dst, codec, rawBytes, hi, lo, settle)
void UnpackJob(const Napi::CallbackInfo& info) {
  const Bytes src = BytesOf(info[0], "src must be a Uint8Array");
  const Bytes dst = BytesOf(info[1], "dst must be a Uint8Array");
  const Codec codec = CodecOf(info[2], Codec::Lz4);
  const size_t raw_bytes = IntegerOf(info[3], "rawBytes must be a whole number");
  const uint64_t hi = U32Of(info[4], "hi must be a u32");
  const uint64_t lo = U32Of(info[5], "lo must be a u32");
  const Napi::Function settle = FunctionOf(info[6], "settle must be a function");
  Instance::Of(info.Env()).jobs.Run(info[0], info[1], settle, [=] {
    return Unpack(src, dst, codec, raw_bytes, hi << 32 | lo);
  });
}

// verify(src, hi, lo, settle)
void VerifyJob(const Napi::CallbackInfo& info) {
  const Bytes src = BytesOf(info[0], "src must be a Uint8Array");
  const uint64_t hi = U32Of(info[1], "hi must be a u32");
  const uint64_t lo = U32Of(info[2], "lo must be a u32");
  const Napi::Function settle = FunctionOf(info[3], "settle must be a function");
  Instance::Of(info.Env()).jobs.Run(info[0], info[0], settle, [=] { return Verify(src, hi << 32 | lo); });
}

// checksum(src, seed): the result is in table.sum.
void ChecksumNow(const Napi::CallbackInfo& info) {
  const Bytes src = BytesOf(info[0], "src must be a Uint8Array");
  const uint64_t seed = IntegerOf(info[1], "seed must be a whole number");
  if (!HasXxhash()) Throw(info.Env(), Code::Missing, kWithoutXxhash);
  const uint64_t sum = Checksum(src, seed);
  uint32_t* const words = Instance::Of(info.Env()).sum_words;
  words[0] = static_cast<uint32_t>(sum >> 32);
  words[1] = static_cast<uint32_t>(sum);
}

struct ScanRequest {
  Bytes src;
  size_t page_bytes;
  Bytes flags;
};

size_t PageBytesOf(const Napi::Value& value, Bytes src) {
  const size_t page_bytes = IntegerOf(value, "pageBytes must be a whole number");
  if (page_bytes == 0) Throw(value.Env(), Code::Bounds, "pageBytes must not be zero");
  if (src.size % page_bytes != 0) Throw(value.Env(), Code::Bounds, "src must be whole pages");
  return page_bytes;
}

ScanRequest ScanRequestOf(const Napi::CallbackInfo& info) {
  const Bytes src = BytesOf(info[0], "src must be a Uint8Array");
  const size_t page_bytes = PageBytesOf(info[1], src);
  const Bytes flags = BytesOf(info[2], "out must be a Uint8Array");
  if (flags.size < src.size / page_bytes) Throw(info.Env(), Code::Bounds, "out is shorter than a byte a page");
  return {src, page_bytes, flags};
}

size_t Scan(IsZero is_zero, const ScanRequest& request) {
  const size_t pages = request.src.size / request.page_bytes;
  return ScanZero(is_zero, request.src.data, pages, request.page_bytes, request.flags.data);
}

// scanZero(src, pageBytes, out): count
Napi::Value ScanZeroNow(const Napi::CallbackInfo& info) {
  const size_t found = Scan(Instance::Of(info.Env()).is_zero, ScanRequestOf(info));
  return Napi::Number::New(info.Env(), static_cast<double>(found));
}

// scanZeroAsync(src, pageBytes, out, settle)
void ScanZeroJob(const Napi::CallbackInfo& info) {
  const ScanRequest request = ScanRequestOf(info);
  const Napi::Function settle = FunctionOf(info[3], "settle must be a function");
  Instance& instance = Instance::Of(info.Env());
  instance.jobs.Run(info[0], info[2], settle, [request, is_zero = instance.is_zero] {
    return Outcome::Done(static_cast<double>(Scan(is_zero, request)));
  });
}

// hash128(src, pageBytes, out, settle)
void Hash128Job(const Napi::CallbackInfo& info) {
  const Bytes src = BytesOf(info[0], "src must be a Uint8Array");
  const size_t page_bytes = PageBytesOf(info[1], src);
  const Words out = WordsOf(info[2], "out must be a Uint32Array");
  const Napi::Function settle = FunctionOf(info[3], "settle must be a function");
  Instance::Of(info.Env()).jobs.Run(info[0], info[2], settle,
                                    [=] { return HashPages(src, page_bytes, out); });
}

}  // namespace

void ExportKernels(Napi::Env env, Napi::Object table) {
  table.Set("pack", Napi::Function::New<PackJob>(env, "pack"));
  table.Set("unpack", Napi::Function::New<UnpackJob>(env, "unpack"));
  table.Set("verify", Napi::Function::New<VerifyJob>(env, "verify"));
  table.Set("checksum", Napi::Function::New<ChecksumNow>(env, "checksum"));
  table.Set("scanZero", Napi::Function::New<ScanZeroNow>(env, "scanZero"));
  table.Set("scanZeroAsync", Napi::Function::New<ScanZeroJob>(env, "scanZeroAsync"));
  table.Set("hash128", Napi::Function::New<Hash128Job>(env, "hash128"));
  table.Set("sum", Instance::Of(env).sum.Value());
}

}  // namespace vmferry

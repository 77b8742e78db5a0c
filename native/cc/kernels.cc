#include "kernels.h"

#include <array>

#include "arguments.h"
#include "instance.h"
#include "page_codec.h"
#include "page_scan.h"
#include "ram_records.h"

namespace vmferry {
namespace {

Codec CodecOf(const Napi::Value& value, Codec last) {
  const uint32_t number = U32Of(value, "codec must be a codec's number");
  if (number > static_cast<uint32_t>(last)) Throw(value.Env(), Code::Bounds, "no such codec");
  return static_cast<Codec>(number);
}

// pack(src, dst, codec, acceleration, settle)
void PackJob(const Napi::CallbackInfo& info) {
  const Bytes src = BytesOf(info[0], "src must be a Uint8Array");
  const Bytes dst = BytesOf(info[1], "dst must be a Uint8Array");
  const Codec codec = CodecOf(info[2], Codec::Lz4Hc);
  const uint32_t acceleration = U32Of(info[3], "acceleration must be a whole number");
  if (acceleration < 1 || acceleration > kMaxAcceleration) {
    Throw(info.Env(), Code::Bounds, "acceleration is out of range");
  }
  const Napi::Function settle = FunctionOf(info[4], "settle must be a function");
  Instance::Of(info.Env()).jobs.Run(info[0], info[1], settle,
                                    [=] { return Pack(src, dst, codec, acceleration); });
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

// checksumAsync(src, settle)
void ChecksumJob(const Napi::CallbackInfo& info) {
  const Bytes src = BytesOf(info[0], "src must be a Uint8Array");
  const Napi::Function settle = FunctionOf(info[1], "settle must be a function");
  Instance::Of(info.Env()).jobs.Run(info[0], info[0], settle, [=] { return Sum(src); });
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

// The places of a cursor (src/ram-records.ts names them).
enum CursorPlace : size_t { kPosition, kEnd, kBlockPages, kCount, kMaxPages, kContentEnd, kMaxContent, kPlaces };

// readRecords(cursor, input, pages, kinds, content): how far it came is in the cursor.
void ReadRecordsNow(const Napi::CallbackInfo& info) {
  const Doubles cursor = DoublesOf(info[0], "cursor must be a Float64Array");
  RecordRun run{};
  run.input = BytesOf(info[1], "input must be a Uint8Array");
  run.pages = WordsOf(info[2], "pages must be a Uint32Array");
  run.kinds = BytesOf(info[3], "kinds must be a Uint8Array");
  run.content = BytesOf(info[4], "content must be a Uint8Array");
  std::array<uint64_t, kPlaces> numbers{};
  if (cursor.size < kPlaces) Throw(info.Env(), Code::Bounds, "the cursor is too short");
  for (size_t i = 0; i < kPlaces; i++) {
    const double number = cursor.data[i];
    if (!IsInteger(number)) Throw(info.Env(), Code::Bounds, "the cursor must hold whole numbers");
    numbers[i] = static_cast<uint64_t>(number);
  }
  run.position = numbers[kPosition];
  run.end = numbers[kEnd];
  run.block_pages = numbers[kBlockPages];
  run.count = numbers[kCount];
  run.max_pages = numbers[kMaxPages];
  run.content_end = numbers[kContentEnd];
  run.max_content = numbers[kMaxContent];
  const bool within = run.position <= run.end && run.end <= run.input.size &&
                      run.block_pages <= uint64_t{1} << 32 && run.count <= run.max_pages &&
                      run.max_pages <= run.pages.size && run.max_pages <= run.kinds.size &&
                      run.content_end <= run.max_content && run.max_content <= run.content.size;
  if (!within) Throw(info.Env(), Code::Bounds, "the cursor lies outside its arrays");
  ReadRecords(run);
  cursor.data[kPosition] = static_cast<double>(run.position);
  cursor.data[kCount] = static_cast<double>(run.count);
  cursor.data[kContentEnd] = static_cast<double>(run.content_end);
}

}  // namespace

void ExportKernels(Napi::Env env, Napi::Object table) {
  table.Set("pack", Napi::Function::New<PackJob>(env, "pack"));
  table.Set("unpack", Napi::Function::New<UnpackJob>(env, "unpack"));
  table.Set("checksumAsync", Napi::Function::New<ChecksumJob>(env, "checksumAsync"));
  table.Set("readRecords", Napi::Function::New<ReadRecordsNow>(env, "readRecords"));
  table.Set("checksum", Napi::Function::New<ChecksumNow>(env, "checksum"));
  table.Set("scanZero", Napi::Function::New<ScanZeroNow>(env, "scanZero"));
  table.Set("scanZeroAsync", Napi::Function::New<ScanZeroJob>(env, "scanZeroAsync"));
  table.Set("hash128", Napi::Function::New<Hash128Job>(env, "hash128"));
  table.Set("sum", Instance::Of(env).sum.Value());
}

}  // namespace vmferry

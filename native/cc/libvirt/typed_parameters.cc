#include "typed_parameters.h"

#include <string>

#include "../arguments.h"
#include "failure.h"

namespace vmferry::libvirt {

namespace {

[[noreturn]] void Refuse(Napi::Env env, const std::string& field, const char* what) {
  Throw(env, Code::Bounds, ("the parameter '" + field + "' " + what).c_str());
}

double NumberOf(const Napi::Value& value, const std::string& field, double least, double most) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0.5;
  if (!(number >= least && number <= most) || number != static_cast<double>(static_cast<int64_t>(number))) {
    Refuse(value.Env(), field, "must be a whole number of 32 bits");
  }
  return number;
}

std::string TextOf(const Napi::Value& value, const std::string& field) {
  if (!value.IsString()) Refuse(value.Env(), field, "must be a string");
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) Refuse(value.Env(), field, "must not contain a zero byte");
  return text;
}

Napi::Value ValueOf(Napi::Env env, const virTypedParameter& parameter) {
  switch (parameter.type) {
    case VIR_TYPED_PARAM_INT:
      return Napi::Number::New(env, parameter.value.i);
    case VIR_TYPED_PARAM_UINT:
      return Napi::Number::New(env, parameter.value.ui);
    case VIR_TYPED_PARAM_LLONG:
      return Napi::BigInt::New(env, static_cast<int64_t>(parameter.value.l));
    case VIR_TYPED_PARAM_ULLONG:
      return Napi::BigInt::New(env, static_cast<uint64_t>(parameter.value.ul));
    case VIR_TYPED_PARAM_DOUBLE:
      return Napi::Number::New(env, parameter.value.d);
    case VIR_TYPED_PARAM_BOOLEAN:
      return Napi::Boolean::New(env, parameter.value.b != 0);
    case VIR_TYPED_PARAM_STRING:
      return Napi::String::New(env, parameter.value.s == nullptr ? "" : parameter.value.s);
    default:
      return env.Undefined();
  }
}

// What adding to a list comes to: the list, and where it is.
struct Growing {
  virTypedParameterPtr* list;
  int* count;
  int* room;
};

void Add(const Growing& to, const std::string& field, uint32_t type, const Napi::Value& value) {
  const char* const name = field.c_str();
  bool lossless = false;
  switch (type) {
    case VIR_TYPED_PARAM_INT: {
      const int number = static_cast<int>(NumberOf(value, field, INT32_MIN, INT32_MAX));
      VIRT(virTypedParamsAddInt, to.list, to.count, to.room, name, number);
      return;
    }
    case VIR_TYPED_PARAM_UINT: {
      const auto number = static_cast<unsigned int>(NumberOf(value, field, 0, UINT32_MAX));
      VIRT(virTypedParamsAddUInt, to.list, to.count, to.room, name, number);
      return;
    }
    case VIR_TYPED_PARAM_LLONG: {
      const int64_t number = value.IsBigInt() ? value.As<Napi::BigInt>().Int64Value(&lossless) : 0;
      if (!lossless) Refuse(value.Env(), field, "must be a bigint of 64 bits with sign");
      VIRT(virTypedParamsAddLLong, to.list, to.count, to.room, name, number);
      return;
    }
    case VIR_TYPED_PARAM_ULLONG: {
      const uint64_t number = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
      if (!lossless) Refuse(value.Env(), field, "must be a bigint of 64 bits without sign");
      VIRT(virTypedParamsAddULLong, to.list, to.count, to.room, name, number);
      return;
    }
    case VIR_TYPED_PARAM_DOUBLE:
      if (!value.IsNumber()) Refuse(value.Env(), field, "must be a number");
      VIRT(virTypedParamsAddDouble, to.list, to.count, to.room, name, value.As<Napi::Number>().DoubleValue());
      return;
    case VIR_TYPED_PARAM_BOOLEAN:
      if (!value.IsBoolean()) Refuse(value.Env(), field, "must be a boolean");
      VIRT(virTypedParamsAddBoolean, to.list, to.count, to.room, name, value.As<Napi::Boolean>().Value() ? 1 : 0);
      return;
    case VIR_TYPED_PARAM_STRING:
      VIRT(virTypedParamsAddString, to.list, to.count, to.room, name, TextOf(value, field).c_str());
      return;
    default:
      Refuse(value.Env(), field, "has an unknown type");
  }
}

}  // namespace

TypedParameters::~TypedParameters() {
  if (list != nullptr) Lib().virTypedParamsFree(list, count);
}

std::shared_ptr<TypedParameters> TypedParameters::Of(const Napi::Value& value) {
  const Napi::Env env = value.Env();
  if (!value.IsArray()) Throw(env, Code::Bounds, "parameters must be an array");
  const Napi::Array entries = value.As<Napi::Array>();
  auto parameters = std::make_shared<TypedParameters>();
  for (uint32_t i = 0; i < entries.Length(); i++) {
    const Napi::Value entry = entries.Get(i);
    if (!entry.IsArray()) Throw(env, Code::Bounds, "a parameter must be [field, type, value]");
    const Napi::Array parts = entry.As<Napi::Array>();
    const std::string field = TextOf(parts.Get(0U), "field");
    if (field.empty() || field.size() >= VIR_TYPED_PARAM_FIELD_LENGTH) {
      Throw(env, Code::Bounds, "the name of a parameter has 1 to 79 bytes");
    }
    const uint32_t type = U32Of(parts.Get(1U), "the type of a parameter must be a number");
    try {
      Add({&parameters->list, &parameters->count, &parameters->room_}, field, type, parts.Get(2U));
    } catch (const Failure& failure) {
      Refuse(env, field, failure.message.c_str());
    }
  }
  return parameters;
}

std::shared_ptr<TypedParameters> TypedParameters::CopyOf(const virTypedParameter* list, int count) {
  auto copy = std::make_shared<TypedParameters>();
  const auto add = [&](const auto& function, const char* field, const auto& value) {
    function(&copy->list, &copy->count, &copy->room_, field, value);
  };
  const Library& lib = Lib();
  for (int i = 0; i < count; i++) {
    const virTypedParameter& from = list[i];
    switch (from.type) {
      case VIR_TYPED_PARAM_INT:
        add(lib.virTypedParamsAddInt, from.field, from.value.i);
        break;
      case VIR_TYPED_PARAM_UINT:
        add(lib.virTypedParamsAddUInt, from.field, from.value.ui);
        break;
      case VIR_TYPED_PARAM_LLONG:
        add(lib.virTypedParamsAddLLong, from.field, from.value.l);
        break;
      case VIR_TYPED_PARAM_ULLONG:
        add(lib.virTypedParamsAddULLong, from.field, from.value.ul);
        break;
      case VIR_TYPED_PARAM_DOUBLE:
        add(lib.virTypedParamsAddDouble, from.field, from.value.d);
        break;
      case VIR_TYPED_PARAM_BOOLEAN:
        add(lib.virTypedParamsAddBoolean, from.field, from.value.b);
        break;
      case VIR_TYPED_PARAM_STRING:
        add(lib.virTypedParamsAddString, from.field, from.value.s);
        break;
      default:
        break;
    }
  }
  return copy;
}

Napi::Object TypedParameters::ToValue(Napi::Env env, const virTypedParameter* list, int count) {
  Napi::Object object = Napi::Object::New(env);
  for (int i = 0; i < count; i++) {
    const Napi::Value value = ValueOf(env, list[i]);
    const Napi::Value before = object.Get(list[i].field);
    // No parameter is an array by itself, and none is undefined.
    if (before.IsUndefined()) {
      object.Set(list[i].field, value);
    } else if (before.IsArray()) {
      Napi::Array all = before.As<Napi::Array>();
      all.Set(all.Length(), value);
    } else {
      Napi::Array all = Napi::Array::New(env, 2);
      all.Set(0U, before);
      all.Set(1U, value);
      object.Set(list[i].field, all);
    }
  }
  return object;
}

}  // namespace vmferry::libvirt

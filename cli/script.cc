#include "cli/script.h"

#include <fmt/format.h>
#include <mujs.h>

#include "w4tune/error.h"

namespace w4tune {
namespace {

[[noreturn]] void fail(js_State* state, const std::string& what) {
  const std::string message = fmt::format("{}: {}", what, js_trystring(state, -1, "unknown"));
  js_pop(state, 1);
  throw Error(ErrorCode::kInternal, message);
}

}  // namespace

void Script::Free::operator()(js_State* state) const { js_freestate(state); }

Script::Script() : state_(js_newstate(nullptr, nullptr, 0)) {
  if (!state_) throw Error(ErrorCode::kInternal, "the script interpreter cannot start");
}

void Script::run(const std::string& name, std::string_view source) {
  js_State* state = state_.get();
  if (js_ploadstring(state, name.c_str(), std::string(source).c_str()) != 0) fail(state, name);
  js_pushundefined(state);
  if (js_pcall(state, 0) != 0) fail(state, name);
  js_pop(state, 1);
}

std::string Script::call(const std::string& object, const std::string& function,
                         const std::string& text, double number) {
  js_State* state = state_.get();
  js_getglobal(state, object.c_str());
  js_getproperty(state, -1, function.c_str());
  js_rot2(state);  // the function, then the object as its `this`
  js_pushlstring(state, text.data(), static_cast<int>(text.size()));
  js_pushnumber(state, number);
  if (js_pcall(state, 2) != 0) fail(state, function);
  std::string out = js_trystring(state, -1, "");
  js_pop(state, 1);
  return out;
}

}  // namespace w4tune

// Script: JavaScript (ECMAScript 5) run in the tool, for the plots that the page draws by the same
// text. Knows no document, no files and no network.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct js_State;

namespace w4tune {

class Script {
 public:
  Script();

  // Runs `source`, whose definitions stay. Throws Error{kInternal} with the script's own message:
  // the scripts are ours.
  void run(const std::string& name, std::string_view source);

  // Calls object.function(text, number), which must return a text.
  std::string call(const std::string& object, const std::string& function, const std::string& text,
                   double number);

 private:
  struct Free {
    void operator()(js_State* state) const;
  };
  std::unique_ptr<js_State, Free> state_;
};

}  // namespace w4tune

// Publishing: a file is made beside its target and takes its name as a whole.
#pragma once

#include <string>
#include <string_view>

namespace w4tune {

// Throws Error{kInvalidArgument} where no file can be put: "cannot <verb> '<target>': ...".
void check_target(std::string_view verb, const std::string& target);

// Brings `temporary`, in the folder of `target`, to the disk, and renames it. Throws
// Error{kDatabase}.
void publish(std::string_view verb, const std::string& temporary, const std::string& target);

// What stands behind "cannot <verb> '<target>': " for a system error, thrown as Error{kDatabase}.
[[noreturn]] void fail_target(std::string_view verb, const std::string& target, int system_error,
                              std::string_view remedy);

}  // namespace w4tune

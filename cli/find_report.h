// A report by the name that people give it.
#pragma once

#include <string>

namespace w4tune {

// A file, else what results/ has by that name: "h200/small_m_f16", or "small_m_f16" if there is
// one. Throws Error{kNotFound}, or Error{kInvalidArgument} where several may be meant.
std::string find_report(const std::string& name);

}  // namespace w4tune

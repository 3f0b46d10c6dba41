#include "templates/wgmma_text.h"

#include <fmt/format.h>

#include "core/check.h"
#include "templates/tiling.h"

namespace w4tune {

std::string wgmma_text(int tokens, Dtype dtype) {
  W4_CHECK(tokens % 8 == 0 && tokens >= 8 && tokens <= 256, "a shape that wgmma has");
  const int sums = tokens / 2;  // of a thread
  std::string names;
  std::string values;
  for (int i = 0; i < sums; ++i) {
    names += fmt::format("{}%{}", i == 0 ? "" : ",", i);
    values += fmt::format("{}\"+f\"(d[{}])", i == 0 ? "" : ",", i);
  }
  return fmt::format(
      R"(namespace w4 {{
template <>
struct Wgmma<{element}, {tokens}> {{
  __device__ __forceinline__ static void multiply(float* d, const u32* a, u64 b, int add) {{
    asm volatile("{{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %{add}, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n{tokens}k16.f32.{type}.{type} "
                 "{{{names}}}, {{%{a0},%{a1},%{a2},%{a3}}}, %{b}, p, 1, 1, 0;\n\t}}"
                 : {values}
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  }}
}};
}}  // namespace w4
)",
      fmt::arg("element", element_name(dtype)), fmt::arg("tokens", tokens),
      fmt::arg("type", dtype == Dtype::kF16 ? "f16" : "bf16"), fmt::arg("names", names),
      fmt::arg("values", values), fmt::arg("a0", sums), fmt::arg("a1", sums + 1),
      fmt::arg("a2", sums + 2), fmt::arg("a3", sums + 3), fmt::arg("b", sums + 4),
      fmt::arg("add", sums + 5));
}

}  // namespace w4tune

// w4tune export: the winners and their cubins as one read-only file for serving.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cache/store.h"
#include "cli/command.h"
#include "cli/options.h"

namespace w4tune {
namespace {

struct Options {
  std::string db;
  std::string out;
  bool json = false;
};

int run(const Options& options) {
  const Store store = Store::open(options.db, Store::Mode::kReadOnly);
  store.export_to(options.out);
  const auto bytes = std::filesystem::file_size(options.out);
  std::size_t winners = 0;
  for (const DeviceInfo& device : store.devices()) winners += store.winners(device).size();
  if (options.json) {
    fmt::print(
        "{}\n",
        nlohmann::json{{"file", options.out}, {"bytes", bytes}, {"winners", winners}}.dump(1));
  } else {
    fmt::print("{}: {} winners, {:.1f} MB\n", options.out, winners,
               static_cast<double>(bytes) * 1e-6);
  }
  return kExitOk;
}

}  // namespace

void add_export(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("export", "Write winners and cubins to one read-only file");
  command->footer("Example:\n  w4tune export pi05_a40.db");
  command->add_option("file", options->out, "The file to write")->required()->type_name("FILE");
  add_db_option(*command, options->db);
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune

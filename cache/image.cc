#include "cache/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <string_view>
#include <thread>

#include "cache/rows.h"
#include "cache/schema.h"
#include "generated/cache_sql.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// SHA-256 to an image that must have it; several compilations may share one.
using Hashes = std::map<std::string, std::string_view>;

void load_cubins(const Database& database, std::int64_t device_id, Hashes& hashes,
                 std::map<std::string, std::string>& cubins) {
  Statement select(database, sql::text("select_cubins.sql"));
  select.bind(":device_id", device_id);
  while (select.step()) {
    const auto entry = cubins.try_emplace(select.text("key"), select.bytes("image")).first;
    hashes.try_emplace(select.text("sha256"), entry->second);
  }
}

// Hashing is most of the time a load takes, so some threads share it.
void check_cubins(const Database& database, const Hashes& hashes) {
  const std::size_t workers = std::clamp(std::thread::hardware_concurrency(), 1u, 8u);
  const std::vector<Hashes::value_type> all(hashes.begin(), hashes.end());
  std::vector<std::future<void>> parts;
  for (std::size_t worker = 0; worker < workers; ++worker) {
    parts.push_back(std::async([&database, &all, worker, workers] {
      for (std::size_t i = worker; i < all.size(); i += workers) {
        rows::check_cubin(database, all[i].second, all[i].first);
      }
    }));
  }
  for (auto& part : parts) part.get();
}

void require_cubin(const Database& database, const Image& image, const std::string& key) {
  if (image.cubins.contains(key)) return;
  throw Error(ErrorCode::kDatabase,
              fmt::format("the cache '{}' is damaged: compilation {} has no cubin. Restore a copy, "
                          "or move it away and tune again.",
                          database.path(), key));
}

}  // namespace

Image load_image(const std::string& path, const std::function<bool(const DeviceInfo&)>& wanted) {
  const Database database = open_for_reading(path);
  Transaction transaction(database, Transaction::Kind::kRead);
  Image image;
  Hashes hashes;
  for (auto& row : rows::select_devices(database)) {
    if (!wanted(row.info)) {
      image.other_devices.push_back(std::move(row.info));
      continue;
    }
    Image::Device device{.info = std::move(row.info),
                         .winners = rows::select_winners(database, row.id),
                         .device_kernels = {}};
    Statement kernels(database, sql::text("select_device_kernels.sql"));
    kernels.bind(":device_id", row.id);
    while (kernels.step()) {
      device.device_kernels.emplace_back(kernels.text("name"), kernels.text("compilation_key"));
    }
    load_cubins(database, row.id, hashes, image.cubins);
    for (const Winner& winner : device.winners) {
      require_cubin(database, image, winner.compilation_key);
    }
    for (const auto& kernel : device.device_kernels) {
      require_cubin(database, image, kernel.second);
    }
    image.devices.push_back(std::move(device));
  }
  transaction.commit();
  check_cubins(database, hashes);
  return image;
}

}  // namespace w4tune

#include "services/rollout/line_settings.h"

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::services {
namespace {

using Json = nlohmann::json;

class Reader {
 public:
  explicit Reader(const Json& line) : line_(line) {}

  template <typename Set>
  void Number(const char* key, Set set) {
    Read(key, "a number", &Json::is_number, [&](const Json& value) { set(value.get<double>()); });
  }
  template <typename Set>
  void Count(const char* key, uint64_t max, Set set) {
    Read(key, "a whole number", &Json::is_number_unsigned, [&](const Json& value) {
      const uint64_t number = value.get<uint64_t>();
      if (number > max) {
        Fail(absl::StrCat(key, ": ", number, " is more than ", max));
      } else {
        set(number);
      }
    });
  }
  template <typename Set>
  void Flag(const char* key, Set set) {
    Read(key, "true or false", &Json::is_boolean,
         [&](const Json& value) { set(value.get<bool>()); });
  }
  // Each element of a list, or one value that stands alone.
  void Each(const char* key, const char* wanted, bool (Json::*is)() const noexcept,
            const std::function<void(const Json&)>& use) {
    if (!line_.contains(key)) return;
    const Json list = line_[key].is_array() ? line_[key] : Json::array({line_[key]});
    for (const Json& value : list) {
      if (!(value.*is)()) {
        return Fail(absl::StrCat(key, ": want ", wanted, ", found ", value.dump().substr(0, 40)));
      }
      use(value);
    }
  }

  const absl::Status& status() const { return status_; }

 private:
  void Read(const char* key, const char* wanted, bool (Json::*is)() const noexcept,
            const std::function<void(const Json&)>& use) {
    if (!line_.contains(key)) return;
    if ((line_[key].*is)()) return use(line_[key]);
    Fail(absl::StrCat(key, ": want ", wanted, ", found ", line_[key].dump().substr(0, 40)));
  }
  void Fail(const std::string& message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
  }

  const Json& line_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<LineSettings> SettingsOfLine(const Json& line, const LineSettings& defaults) {
  LineSettings settings = defaults;
  v1::SamplingParams& sampling = settings.sampling;
  Reader reader(line);
  auto count = [](auto set) { return [set](uint64_t n) { set(static_cast<uint32_t>(n)); }; };
  reader.Number("temperature", [&](double x) { sampling.set_temperature(x); });
  reader.Number("top_p", [&](double x) { sampling.set_top_p(x); });
  reader.Number("min_p", [&](double x) { sampling.set_min_p(x); });
  reader.Number("repetition_penalty", [&](double x) { sampling.set_repetition_penalty(x); });
  reader.Number("presence_penalty", [&](double x) { sampling.set_presence_penalty(x); });
  reader.Number("frequency_penalty", [&](double x) { sampling.set_frequency_penalty(x); });
  reader.Count("top_k", UINT32_MAX, count([&](uint32_t n) { sampling.set_top_k(n); }));
  reader.Count("max_tokens", UINT32_MAX, count([&](uint32_t n) { sampling.set_max_tokens(n); }));
  reader.Count("min_tokens", UINT32_MAX, count([&](uint32_t n) { sampling.set_min_tokens(n); }));
  reader.Count("seed", UINT64_MAX, [&](uint64_t n) { sampling.set_seed(n); });
  reader.Count("n", 100'000, count([&](uint32_t n) { settings.completions = n; }));
  reader.Flag("ignore_eos", [&](bool x) { sampling.set_ignore_eos(x); });
  if (line.contains("stop")) sampling.clear_stop_strings();
  reader.Each("stop", "texts", &Json::is_string,
              [&](const Json& text) { sampling.add_stop_strings(text.get<std::string>()); });
  if (line.contains("stop_token_ids")) sampling.clear_stop_token_ids();
  reader.Each("stop_token_ids", "token ids", &Json::is_number_unsigned,
              [&](const Json& id) { sampling.add_stop_token_ids(id.get<uint32_t>()); });
  REIN_RETURN_IF_ERROR(reader.status());
  if (settings.completions == 0) return absl::InvalidArgumentError("n: want at least 1");
  return settings;
}

}  // namespace rein::services

#include "services/rollout/openai_error.h"

#include <nlohmann/json.hpp>

namespace rein::services {

std::string OpenAiError(const absl::Status& status) {
  const std::string message(status.message());
  using nlohmann::json;
  json error = {{"message", message}, {"param", nullptr}, {"code", nullptr}};
  const bool wrong = absl::IsInvalidArgument(status) || absl::IsNotFound(status);
  error["type"] = wrong ? "invalid_request_error" : absl::IsUnavailable(status) ? "service_unavailable" : "server_error";
  const size_t colon = message.find(": ");
  if (absl::IsInvalidArgument(status) && colon != std::string::npos && message.find(' ') > colon) {
    error["param"] = message.substr(0, colon);
  }
  if (absl::IsNotFound(status)) error["code"] = "model_not_found";
  return json{{"error", error}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace rein::services

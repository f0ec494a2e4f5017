// OpenAiDoor lets people and programs talk to the policy that is being trained, as they talk to OpenAI's servers:
//
//   POST /v1/chat/completions  POST /v1/completions  GET /v1/models  GET /v1/models/NAME  GET /health
//
// The model's name is that of the job; "rein" means the one that is loaded, whichever it is. A completion begins under
// the newest weights and may go on under newer ones; each choice tells its policy_version. Draws are keyed apart from
// those of training, so that talking changes no rollout of a job. One thread answers one request.
//
// Calls of tools (openai_tools.h) come whole, also in a stream: what cannot be read as a call stays content, and that is
// known at its end.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "common/http/http_server.h"
#include "services/rollout/openai_request.h"
#include "services/rollout/rollout_session.h"

namespace rein::services {

class OpenAiDoor {
 public:
  static constexpr int kThreads = 64;

  // `session` gives what is loaded now, or null.
  explicit OpenAiDoor(std::function<std::shared_ptr<RolloutSession>()> session) : session_(std::move(session)) {}

  std::vector<http::Route> Routes();
  // Answers one request, of the chat API or of that for texts.
  void Complete(bool chat, const http::Request& request, http::Response& response);
  // Streams end with the token that they wait for.
  void Stop() { stopping_ = true; }

 private:
  class Run;

  absl::StatusOr<std::shared_ptr<Run>> Begin(bool chat, const std::string& body);
  void ListModels(const std::string& name, http::Response& response);

  const std::function<std::shared_ptr<RolloutSession>()> session_;
  std::atomic<uint64_t> next_ = 0;
  std::atomic<bool> stopping_ = false;
};

}  // namespace rein::services

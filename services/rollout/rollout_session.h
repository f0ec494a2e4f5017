// RolloutSession is the model that a rollout process holds for one job: weight slots, tokenizer,
// pages and the engine over them.
//
// `engine`, `receiver` and `text` live as long as the session. Thread-safe.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "common/policy/policy_slots.h"
#include "common/sync/clock.h"
#include "common/telemetry/metrics.h"
#include "common/text/model_text.h"
#include "common/weights/weight_receiver.h"
#include "rein/v1/debug.pb.h"
#include "rein/v1/rollout.pb.h"
#include "rollout/engine/decoder_step_model.h"
#include "rollout/engine/engine.h"
#include "services/rollout/rollout_metrics.h"

namespace rein::services {

class RolloutSession {
 public:
  // Builds everything; the weights come later. `device` is cpu or cuda:N. `on_failure` gets the
  // error of a generation step, from the engine's thread. The clock and the metrics must outlive
  // the session. INVALID_ARGUMENT or NOT_FOUND for a folder that is no model, FAILED_PRECONDITION
  // when tokenizer and model do not fit, RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<std::unique_ptr<RolloutSession>> Open(
      const v1::LoadModelRequest& request, const std::string& device, const sync::Clock& clock,
      telemetry::Metrics& metrics, std::function<void(const absl::Status&)> on_failure);

  const std::string& job() const { return job_; }
  // Whether `request` asks for what is loaded already.
  bool IsSameLoad(const v1::LoadModelRequest& request) const;
  v1::LoadModelReply Loaded() const;
  // What CheckRowsStable() said when the session was opened.
  const absl::Status& row_stability() const { return row_stability_; }

  rollout::Engine& engine() { return *engine_; }
  const text::ModelText& text() const { return *text_; }
  weights::WeightReceiver* receiver() { return &receiver_; }
  v1::ActorStatusReply Status() const;
  // FAILED_PRECONDITION before the first weights.
  absl::StatusOr<v1::TraceLayersReply> Trace(const v1::TraceLayersRequest& request);
  // Requests under way end with FINISH_REASON_ABORT.
  void Close() { engine_->Abort({}); }

 private:
  RolloutSession(const v1::LoadModelRequest& request, std::unique_ptr<policy::PolicySlots> slots,
                 std::unique_ptr<text::ModelText> text, const sync::Clock& clock,
                 telemetry::Metrics& metrics);

  absl::Status StartEngine(const v1::LoadModelRequest& request, const sync::Clock& clock,
                           std::function<void(const absl::Status&)> on_failure);

  const std::string job_;
  const std::string load_key_;
  std::unique_ptr<policy::PolicySlots> slots_;
  std::unique_ptr<text::ModelText> text_;
  RolloutMetrics metrics_;
  std::unique_ptr<rollout::DecoderStepModel> model_;
  absl::Status row_stability_;
  weights::WeightReceiver receiver_;
  std::unique_ptr<rollout::Engine> engine_;  // last: its thread uses the others
};

}  // namespace rein::services

#include "services/rollout/rollout_session.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/policy/opened_model.h"
#include "common/status/status_macros.h"
#include "rollout/engine/step_trace.h"
#include "services/role/debug_service.h"
#include "services/role/trained_choice.h"

namespace rein::services {
namespace {

// Longest that sequences under way may hold new weights up, when they should end first.
constexpr absl::Duration kSwapPatience = absl::Minutes(30);

std::string LoadKey(const v1::LoadModelRequest& request) {
  v1::LoadModelRequest key;
  *key.mutable_model() = request.model();
  *key.mutable_rollout() = request.rollout();
  key.set_expert_choices(request.expert_choices());
  return absl::StrCat(request.fence().job(), "\n", key.SerializeAsString());
}

rollout::EngineOptions EngineOptionsOf(const v1::RolloutConfig& config) {
  rollout::EngineOptions options;
  if (config.has_max_running()) options.max_running = static_cast<int32_t>(config.max_running());
  if (config.has_step_tokens()) options.step_tokens = static_cast<int32_t>(config.step_tokens());
  if (config.has_prefix_cache()) options.prefix_cache = config.prefix_cache();
  if (config.has_max_waiting()) options.max_waiting = static_cast<int32_t>(config.max_waiting());
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RolloutSession>> RolloutSession::Open(
    const v1::LoadModelRequest& request, const std::string& device, const sync::Clock& clock,
    telemetry::Metrics& metrics, std::function<void(const absl::Status&)> on_failure) {
  const v1::ModelConfig& config = request.model();
  KeepBitsAs(config);
  models::TrainedChoice trained = TrainedChoiceOf(config);
  trained.kv_fp8 = config.has_kv_cache();
  REIN_ASSIGN_OR_RETURN(
      policy::OpenedModel model,
      policy::OpenModel({.path = ModelPathOf(config),
                         .trained = std::move(trained),
                         .dtype = config.dtype(),
                         .device = device}));
  auto session = std::unique_ptr<RolloutSession>(
      new RolloutSession(request, std::move(model.slots), std::move(model.text), clock, metrics));
  REIN_RETURN_IF_ERROR(session->StartEngine(request, clock, std::move(on_failure)));
  return session;
}

RolloutSession::RolloutSession(const v1::LoadModelRequest& request,
                               std::unique_ptr<policy::PolicySlots> slots,
                               std::unique_ptr<text::ModelText> text, const sync::Clock& clock,
                               telemetry::Metrics& metrics)
    : job_(request.fence().job()),
      load_key_(LoadKey(request)),
      slots_(std::move(slots)),
      text_(std::move(text)),
      metrics_(metrics, job_),
      receiver_(*slots_, clock) {}

absl::Status RolloutSession::StartEngine(const v1::LoadModelRequest& request,
                                         const sync::Clock& clock,
                                         std::function<void(const absl::Status&)> on_failure) {
  rollout::KvOptions kv = {.kv_tokens = request.rollout().kv_tokens(),
                           .max_length = request.model().max_length()};
  const rollout::EngineOptions engine = EngineOptionsOf(request.rollout());
  kv.reserved_bytes = request.reserved_bytes();
  kv.expert_choices = request.expert_choices();
  kv.step_tokens = engine.step_tokens;
  kv.max_running = engine.max_running;
  if (request.rollout().has_page_tokens()) {
    kv.page_tokens = static_cast<int32_t>(request.rollout().page_tokens());
  }
  REIN_ASSIGN_OR_RETURN(model_, rollout::DecoderStepModel::Create(*slots_, kv));
  REIN_RETURN_IF_ERROR(slots_->FillWithPattern());
  row_stability_ = model_->CheckRowsStable();
  rollout::EngineObserver observer = metrics_.Observer();
  observer.on_failure = std::move(on_failure);
  REIN_ASSIGN_OR_RETURN(engine_,
                        rollout::Engine::Create(engine, *model_, *text_,
                                                clock, std::move(observer)));
  slots_->SetSwapHook([this](const weights::Version& version, weights::InFlight in_flight,
                             const std::function<absl::Status()>& swap) {
    return engine_->SwapWeights(version, in_flight, kSwapPatience, swap);
  });
  return absl::OkStatus();
}

bool RolloutSession::IsSameLoad(const v1::LoadModelRequest& request) const {
  return load_key_ == LoadKey(request);
}

v1::LoadModelReply RolloutSession::Loaded() const {
  v1::LoadModelReply reply;
  reply.set_parameters(static_cast<uint64_t>(slots_->registry().parameter_count()));
  const rollout::StepModelLimits limits = model_->limits();
  reply.set_kv_tokens(static_cast<uint64_t>(limits.pages - 1) *
                      static_cast<uint64_t>(limits.page_tokens));
  if (slots_->decoder().device().is_cpu()) return reply;
  auto add = [&](const char* name, uint64_t bytes) {
    v1::MemoryPart* part = reply.add_memory();
    part->set_name(name);
    part->set_bytes(bytes);
  };
  add("weights", slots_->bytes());
  add("kv", model_->page_bytes());
  add("steps", model_->step_bytes());
  return reply;
}

v1::ActorStatusReply RolloutSession::Status() const {
  v1::ActorStatusReply status;
  status.set_job(job_);
  if (std::optional<weights::Version> version = engine_->version()) {
    status.mutable_version()->set_lineage(version->lineage);
    status.mutable_version()->set_number(version->number);
    status.set_digest(slots_->digest());
  }
  const rollout::EngineStats stats = engine_->stats();
  status.set_requests_running(stats.running);
  status.set_requests_waiting(stats.waiting);
  status.set_kv_usage(stats.kv_usage);
  status.set_tokens_total(stats.generated_tokens);
  return status;
}

absl::StatusOr<v1::TraceLayersReply> RolloutSession::Trace(const v1::TraceLayersRequest& request) {
  absl::StatusOr<policy::LayerTrace> trace = absl::FailedPreconditionError("no weights have come yet");
  v1::ActorStatusReply standing;
  engine_->BetweenSteps([&] {
    standing = Status();
    if (!standing.has_version()) return;
    trace = rollout::TraceInSteps(*slots_, SequenceOf(request), request.temperature());
  });
  REIN_RETURN_IF_ERROR(trace.status());
  v1::TraceLayersReply reply = ToProto(*trace);
  *reply.mutable_version() = standing.version();
  reply.set_digest(standing.digest());
  reply.set_in_steps(true);
  return reply;
}

}  // namespace rein::services

#include "services/trainer/trainer_session.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/model_source.h"
#include "common/models/arena.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"
#include "services/role/debug_service.h"
#include "services/role/trained_choice.h"
#include "services/trainer/loss_client.h"
#include "services/trainer/sequences_from_proto.h"
#include "services/trainer/settings_from_job.h"
#include "trainer/algorithms/from_job.h"
#include "trainer/trainer_checkpoint.h"

namespace rein::services {
namespace {

using trainer::TrainingSequence;

constexpr int kPeerCopies = 2;

template <typename Reply>
void AddMetrics(const std::vector<trainer::Metric>& metrics, Reply* reply) {
  for (const trainer::Metric& metric : metrics) {
    v1::Metric* added = reply->add_metrics();
    added->set_name(metric.name);
    added->set_value(metric.value);
  }
}

void AddLogprobs(const std::vector<std::vector<float>>& logprobs,
                 google::protobuf::RepeatedPtrField<v1::SequenceLogprobs>* out) {
  for (const std::vector<float>& sequence : logprobs) {
    out->Add()->mutable_logprobs()->Add(sequence.begin(), sequence.end());
  }
}

// Everything that decides what Load builds; the fence does not.
std::string LoadKey(const v1::LoadTrainerRequest& request) {
  v1::LoadTrainerRequest key = request;
  key.clear_fence();
  return key.SerializeAsString();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrainerSession>> TrainerSession::Open(
    const v1::LoadTrainerRequest& request, const std::string& device,
    std::unique_ptr<parallel::ProcessGroup> group) {
  auto session = std::unique_ptr<TrainerSession>(new TrainerSession);
  REIN_ASSIGN_OR_RETURN(trainer::TrainerSettings settings, SettingsFromJob(request.job(), device));
  REIN_ASSIGN_OR_RETURN(trainer::Algorithm algorithm, trainer::AlgorithmFromJob(request.job()));
  KeepBitsAs(request.job().model());
  if (algorithm.outside) algorithm.outside->evaluate = RemoteLoss(request.fence().job(), *algorithm.outside);
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, checkpoint::FindModel(settings.model_path));
  session->tokenizer_folder_ = source.text;
  session->job_ = request.fence().job();
  session->load_key_ = LoadKey(request);
  session->lineage_ = request.lineage();
  session->group_ = std::move(group);
  session->grpc_channel_ = weights::GrpcWeightChannel();
  session->nccl_channel_ = weights::NcclWeightChannel();
  session->ipc_channel_ = weights::IpcWeightChannel();
  REIN_ASSIGN_OR_RETURN(session->trainer_,
                        trainer::PolicyTrainer::Create(std::move(settings), std::move(algorithm),
                                                       *session->group_));
  if (!request.checkpoint_path().empty()) {
    REIN_ASSIGN_OR_RETURN(session->controller_state_,
                          trainer::RestoreCheckpoint(*session->trainer_, request.checkpoint_path()));
  }
  REIN_RETURN_IF_ERROR(session->Digest());
  return session;
}

absl::Status TrainerSession::Digest() {
  REIN_ASSIGN_OR_RETURN(digests_,
                        models::ArenaDigests(trainer_->registry(), trainer_->parts().trained));
  return absl::OkStatus();
}

bool TrainerSession::IsSameLoad(const v1::LoadTrainerRequest& request) const {
  return load_key_ == LoadKey(request) && last_update_.metrics().empty();
}

v1::PolicyVersion TrainerSession::version() const {
  v1::PolicyVersion version;
  version.set_lineage(lineage_);
  version.set_number(trainer_->progress().updates);
  return version;
}

uint64_t TrainerSession::digest() const { return weights::CombineDigests(digests_); }

v1::LoadTrainerReply TrainerSession::Loaded() const {
  v1::LoadTrainerReply reply;
  reply.set_parameters(trainer_->registry().parameter_count());
  *reply.mutable_version() = version();
  reply.set_digest(digest());
  reply.set_controller_state(controller_state_);
  for (const trainer::PlannedPart& part : trainer_->memory_plan().parts) {
    v1::MemoryPart* planned = reply.add_memory();
    planned->set_name(part.name);
    planned->set_bytes(static_cast<uint64_t>(part.bytes));
  }
  // The plan is right to 5 %, and what is left goes to others.
  const trainer::MemoryPlan& plan = trainer_->memory_plan();
  reply.set_coming_bytes(static_cast<uint64_t>(plan.coming() + plan.total() / 20));
  return reply;
}

absl::StatusOr<v1::UpdateReply> TrainerSession::Update(const v1::UpdateRequest& request) {
  const uint64_t done = trainer_->progress().updates;
  if (request.update() == done && !last_update_.metrics().empty()) return last_update_;
  if (request.update() != done + 1) {
    return absl::FailedPreconditionError(absl::StrCat("Update: got update ", request.update(),
                                                      ", the next is ", done + 1));
  }
  REIN_ASSIGN_OR_RETURN(trainer::UpdateResult result,
                        trainer_->Update(SequencesFromProto(request.sequences()), !request.no_promise()));
  REIN_RETURN_IF_ERROR(Digest());
  v1::UpdateReply reply;
  *reply.mutable_version() = version();
  reply.set_digest(digest());
  reply.mutable_advantages()->Add(result.advantages.begin(), result.advantages.end());
  AddMetrics(result.metrics, &reply);
  for (size_t i = 0; result.figures && i < result.figures->logprobs.size(); ++i) {
    v1::PolicyFigures& figures = *reply.add_policy_figures();
    figures.mutable_logprobs()->Add(result.figures->logprobs[i].begin(), result.figures->logprobs[i].end());
    figures.mutable_entropies()->Add(result.figures->entropies[i].begin(), result.figures->entropies[i].end());
  }
  for (const trainer::MismatchedToken& token : result.mismatched) {
    v1::Mismatch& mismatch = *reply.mutable_mismatch();
    mismatch.set_sequence(token.sequence);
    mismatch.set_target(static_cast<uint32_t>(token.target));
    mismatch.set_behaviour_logprob(token.behaviour_logprob);
    mismatch.set_policy_logprob(token.policy_logprob);
  }
  last_update_ = reply;
  return reply;
}

absl::StatusOr<v1::ForwardBackwardReply> TrainerSession::ForwardBackward(
    const v1::ForwardBackwardRequest& request) {
  REIN_ASSIGN_OR_RETURN(trainer::PassResult result,
                        trainer_->ForwardBackward(SequencesFromProto(request.sequences())));
  v1::ForwardBackwardReply reply;
  AddMetrics(result.metrics, &reply);
  AddLogprobs(result.logprobs, reply.mutable_logprobs());
  return reply;
}

absl::StatusOr<v1::OptimStepReply> TrainerSession::OptimStep(const v1::OptimStepRequest& request) {
  std::optional<double> rate;
  if (request.has_learning_rate()) rate = request.learning_rate();
  REIN_ASSIGN_OR_RETURN(std::vector<trainer::Metric> metrics, trainer_->OptimStep(rate));
  REIN_RETURN_IF_ERROR(Digest());
  v1::OptimStepReply reply;
  *reply.mutable_version() = version();
  reply.set_digest(digest());
  AddMetrics(metrics, &reply);
  return reply;
}

absl::StatusOr<v1::PublishReply> TrainerSession::Publish(const v1::PublishRequest& request) {
  const v1::PolicyVersion current = version();
  if (request.version().lineage() != current.lineage() ||
      request.version().number() != current.number()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "Publish: got version ", request.version().lineage(), ".", request.version().number(),
        ", the current one is ", current.lineage(), ".", current.number()));
  }
  const bool nccl = request.transport() == v1::WEIGHT_TRANSPORT_NCCL;
  at::Tensor arena = trainer_->parts().trained;
  if (!nccl) {
    REIN_ASSIGN_OR_RETURN(arena, trainer_->HostWeights());
  }
  if (nccl && arena.is_cpu()) {
    return absl::FailedPreconditionError(
        "Publish: weights by NCCL want a trainer on a GPU, this one computes on the CPU");
  }
  weights::Publication publication;
  publication.fence = request.fence();
  publication.version = {current.lineage(), current.number()};
  publication.plan = weights::PlanOf(trainer_->registry(), trainer_->dtype());
  publication.plan.frozen_digest = trainer_->frozen_digest();
  publication.digests = digests_;
  publication.arena = arena.mutable_data_ptr();
  publication.device = arena.is_cpu() ? 0 : arena.device().index();
  publication.deadline = absl::Seconds(request.deadline_seconds());
  publication.in_flight = weights::FromProto(request.in_flight());
  // More than a few copies from one GPU share its links: a broadcast is faster.
  const auto& to = request.receivers();
  const bool few = std::count_if(to.begin(), to.end(), [](const auto& r) { return !r.same_gpu(); }) <= kPeerCopies;
  std::vector<weights::Receiver> near, elsewhere;  // whose GPUs read this one's memory, by IPC
  for (const v1::WeightReceiver& r : to) {
    const bool reads = r.same_gpu() || (r.same_host() && few);
    (nccl && reads && !apart_.contains(r.name()) ? near : elsewhere).push_back({r.name(), r.address(), r.actor_epoch()});
  }
  std::map<std::string, absl::Status> outcomes;
  for (size_t i = 0; const weights::Outcome& outcome : ipc_channel_->Send(publication, near)) {
    outcomes[outcome.name] = outcome.status;
    if (absl::IsUnimplemented(outcome.status)) {
      apart_.insert(outcome.name);  // from here on by NCCL
      elsewhere.push_back(near[i]);
    }
    ++i;
  }
  v1::PublishReply reply;
  *reply.mutable_version() = current;
  reply.set_digest(digest());
  reply.set_bytes(publication.plan.arena_bytes);
  weights::WeightChannel& channel = nccl ? *nccl_channel_ : *grpc_channel_;
  if (!elsewhere.empty()) {
    for (const weights::Outcome& outcome : channel.Send(publication, elsewhere)) outcomes[outcome.name] = outcome.status;
  }
  bool any = request.receivers().empty();
  for (const v1::WeightReceiver& receiver : request.receivers()) {
    const absl::Status& status = outcomes[receiver.name()];
    v1::PublishOutcome* added = reply.add_outcomes();
    added->set_name(receiver.name());
    if (!status.ok()) added->set_error(status.ToString());
    any |= status.ok();
  }
  if (any) return reply;
  return absl::UnavailableError(absl::StrCat("Publish: no receiver took version ", current.lineage(),
                                             ".", current.number(), "; first: ",
                                             reply.outcomes(0).name(), ": ",
                                             reply.outcomes(0).error()));
}

absl::StatusOr<v1::SaveReply> TrainerSession::Save(const v1::SaveRequest& request) {
  REIN_ASSIGN_OR_RETURN(uint64_t bytes,
                        trainer::SaveCheckpoint(*trainer_, request.path(),
                                                {request.controller_state(), tokenizer_folder_,
                                                 request.export_only()}));
  v1::SaveReply reply;
  *reply.mutable_version() = version();
  reply.set_bytes(bytes);
  return reply;
}

absl::StatusOr<v1::ScorePolicyReply> TrainerSession::Score(const v1::ScorePolicyRequest& request) {
  v1::ScorePolicyReply reply;
  *reply.mutable_version() = version();
  if (request.measure()) {
    REIN_ASSIGN_OR_RETURN(trainer::Measured measured, trainer_->Measure(SequencesFromProto(request.sequences())));
    AddMetrics(measured.metrics, &reply);
    reply.set_weight(measured.weight);
    return reply;
  }
  REIN_ASSIGN_OR_RETURN(auto logprobs, trainer_->Score(SequencesFromProto(request.sequences())));
  AddLogprobs(logprobs, reply.mutable_sequences());
  return reply;
}

absl::StatusOr<v1::TraceLayersReply> TrainerSession::Trace(const v1::TraceLayersRequest& request) {
  REIN_ASSIGN_OR_RETURN(policy::LayerTrace trace,
                        policy::TraceAtOnce(trainer_->decoder(), SequenceOf(request), request.temperature()));
  v1::TraceLayersReply reply = ToProto(trace);
  *reply.mutable_version() = version();
  reply.set_digest(digest());
  return reply;
}

}  // namespace rein::services

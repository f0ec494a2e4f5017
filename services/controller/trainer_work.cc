#include "services/controller/trainer_work.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/config/host_port.h"
#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/rpc/limits.h"
#include "services/controller/memory_text.h"

namespace rein::services {
namespace {

constexpr absl::Duration kLoadDeadline = absl::Minutes(30);
constexpr absl::Duration kSaveDeadline = absl::Minutes(30);
constexpr absl::Duration kPublishDeadline = absl::Minutes(2);
constexpr int kMaxRefusals = 8;
constexpr uint64_t kValidatedTokens = 1 << 18;  // in one call

bool OnGpu(const std::string& device) { return device.rfind("gpu", 0) == 0; }

void AddMetric(v1::UpdateRecord& record, const std::string& name, double value) {
  v1::Metric* metric = record.add_metrics();
  metric->set_name(name);
  metric->set_value(value);
}

}  // namespace

void TrainerWork::NoteSpan(const std::string& work, const std::string& about) {
  const PooledActor* trainer = run_.pool.trainer();
  run_.NoteSpan(work, trainer == nullptr ? "" : trainer->view.name, about, started_);
}

TrainerView TrainerWork::View() const {
  return {.present = run_.pool.trainer() != nullptr,
          .known = known_,
          .busy = call_ != 0,
          .loaded = loaded_,
          .version = version_,
          .not_before = not_before_};
}

void TrainerWork::OnLeft() {
  call_ = 0;
  known_ = loaded_ = false;
  not_before_ = absl::InfinitePast();
  failures_ = 0;
}

void TrainerWork::Start(const Action& action) {
  switch (action.kind) {
    case ActionKind::kAskTrainer:
      return Ask();
    case ActionKind::kLoadTrainer:
      return Load(/*initial=*/false);
    case ActionKind::kLoadInitial:
      return Load(/*initial=*/true);
    case ActionKind::kPublish:
      return Publish(action.actors);
    case ActionKind::kSave:
      return Save();
    case ActionKind::kExport:
      return Export();
    case ActionKind::kTrain:
      return Train(action.count);
    default:
      return run_.Fail("bug: the trainer was given work that is not its own");
  }
}

void TrainerWork::Failed(const std::string& doing, const absl::Status& status) {
  ++failures_;
  if (!IsTransient(status) || IsFinalRefusal(status, failures_)) {
    run_.Fail(absl::StrCat("trainer cannot ", doing, ": ", std::string(status.message())));
    return;
  }
  known_ = false;
  not_before_ = run_.deps.clock.Now() + RetryPause(failures_);
}

void TrainerWork::Ask() {
  run_.pool.trainer()->trainer->Status(rpc::kControlDeadline, Expect(&TrainerWork::OnStatus));
}

void TrainerWork::OnStatus(absl::StatusOr<v1::TrainerStatusReply> reply) {
  if (!reply.ok()) return Failed("tell its status", reply.status());
  known_ = true;
  version_ = FromProto(reply->version());
  digest_ = reply->digest();
  loaded_ = !run_.job.name.empty() && reply->job() == run_.job.name;
  if (!loaded_ || !(version_ == run_.Current())) return;
  if (run_.job.digest == 0) {
    run_.job.digest = digest_;
    run_.SaveJob();
    run_.Commit();
  } else if (run_.job.digest != digest_) {
    loaded_ = false;  // not the weights that the ledger knows under this name
  }
}

void TrainerWork::RollBack(uint64_t checkpoint_update) {
  uint64_t lost = run_.job.updates_done - checkpoint_update;
  run_.Check(run_.ledger.RollBack(checkpoint_update));
  run_.job.updates_done = checkpoint_update;
  absl::StatusOr<std::optional<v1::UpdateRecord>> newest = run_.deps.store.ReadUpdate(run_.job.name, checkpoint_update);
  if (run_.Check(newest.status())) run_.job.figures = ListedFigures(newest->value_or(v1::UpdateRecord()));
  if (lost > 0) {
    run_.Tell(absl::StrCat("the trainer starts again at update ", checkpoint_update, ": ", lost,
                           lost == 1 ? " update is" : " updates are",
                           " trained again from stored data"));
  }
}

void TrainerWork::Load(bool initial) {
  JobRecord& job = run_.job;
  wanted_.lineage = job.next_lineage++;
  wanted_.number = 0;
  std::string checkpoint_path;
  if (!initial) {
    if (!run_.checkpoints.empty()) {
      wanted_.number = run_.checkpoints.back().update();
      checkpoint_path = run_.checkpoints.back().path();
    }
    RollBack(wanted_.number);
    job.lineage = wanted_.lineage;
    job.digest = 0;
  }
  loaded_ = false;
  run_.SaveJob();
  if (!run_.Commit()) return;
  PooledActor& trainer = *run_.pool.trainer();
  v1::LoadTrainerRequest request;
  *request.mutable_fence() = run_.FenceOf(trainer.actor, absl::StrCat("load/", wanted_.lineage));
  *request.mutable_job() = job.config;
  // The schedule ends where the job does.
  auto updates = static_cast<uint32_t>(run_.plan.updates);
  config::SetUpdates(updates, *request.mutable_job());
  request.set_lineage(wanted_.lineage);
  request.set_checkpoint_path(checkpoint_path);
  trainer.trainer->Load(request, kLoadDeadline, Expect(&TrainerWork::OnLoaded));
}

void TrainerWork::OnLoaded(absl::StatusOr<v1::LoadTrainerReply> reply) {
  if (!reply.ok()) return Failed("load the model", reply.status());
  version_ = FromProto(reply->version());
  if (!(version_ == wanted_)) {
    return run_.Fail(absl::StrCat("trainer loaded version ", version_.lineage, ".", version_.number,
                                  ", wanted ", wanted_.lineage, ".", wanted_.number));
  }
  failures_ = 0;
  loaded_ = true;
  digest_ = reply->digest();
  coming_bytes_ = reply->coming_bytes();
  parameters_ = reply->parameters();
  if (reply->memory_size() > 0) run_.Tell(absl::StrCat("the trainer plans ", MemoryText(reply->memory())));
  if (!(version_ == run_.Current())) return;  // the initial weights, for a reference
  run_.job.digest = digest_;
  run_.SaveJob();
  run_.Commit();
}

void TrainerWork::Publish(const std::vector<std::string>& actors) {
  PooledActor& trainer = *run_.pool.trainer();
  v1::PublishRequest request;
  *request.mutable_fence() = run_.FreshFence(
      trainer.actor, absl::StrCat("publish/", version_.lineage, ".", version_.number));
  *request.mutable_version() = ToProto(version_);
  request.set_deadline_seconds(absl::ToDoubleSeconds(kPublishDeadline));
  if (run_.job.config.rollout().in_flight() == v1::IN_FLIGHT_RECOMPUTE) request.set_in_flight(v1::IN_FLIGHT_POLICY_RECOMPUTE);
  // One publish has one wire: receivers on a GPU first, the others by the next one.
  bool gpu = OnGpu(trainer.actor.device()) &&
             std::any_of(actors.begin(), actors.end(), [this](const std::string& name) {
               return OnGpu(run_.pool.Find(name)->actor.device());
             });
  request.set_transport(gpu ? v1::WEIGHT_TRANSPORT_NCCL : v1::WEIGHT_TRANSPORT_GRPC);
  receivers_.clear();
  for (const std::string& name : actors) {
    PooledActor& actor = *run_.pool.Find(name);
    if (gpu && !OnGpu(actor.actor.device())) continue;
    v1::WeightReceiver* receiver = request.add_receivers();
    receiver->set_name(name);
    receiver->set_address(actor.actor.address());
    receiver->set_actor_epoch(actor.actor.epoch());
    receiver->set_same_gpu(!trainer.actor.device_id().empty() && actor.actor.device_id() == trainer.actor.device_id());
    receiver->set_same_host(config::HostOf(actor.actor.address()) == config::HostOf(trainer.actor.address()));
    receivers_.push_back(name);
  }
  wanted_ = version_;
  trainer.trainer->Publish(request, kPublishDeadline + absl::Seconds(30),
                           Expect(&TrainerWork::OnPublished));
}

void TrainerWork::OnPublished(absl::StatusOr<v1::PublishReply> reply) {
  run_.times.sync += run_.deps.clock.Now() - started_;
  NoteSpan("publish", absl::StrCat("version ", version_.lineage, ".", version_.number));
  if (!reply.ok() && !IsTransient(reply.status())) return Failed("publish", reply.status());
  if (!reply.ok()) Failed("publish", reply.status());
  for (size_t i = 0; i < receivers_.size(); ++i) {
    PooledActor* actor = run_.pool.Find(receivers_[i]);
    if (actor == nullptr) continue;
    std::string error = !reply.ok() ? std::string(reply.status().message())
                        : static_cast<int>(i) < reply->outcomes_size() ? reply->outcomes(i).error()
                                                                       : "no outcome";
    if (error.empty()) {
      actor->failures = 0;
      actor->view.has_weights = true;
      actor->view.version = wanted_;
      continue;
    }
    actor->view.not_before = run_.deps.clock.Now() + RetryPause(++actor->failures);
    // It may hold the new weights and have lost the answer: what it says itself counts.
    actor->view.loaded = false;
    if (actor->failures >= kMaxRefusals) {
      run_.Fail(absl::StrCat(receivers_[i], " does not take the weights: ", error));
    }
  }
  if (reply.ok()) failures_ = 0;
}

void TrainerWork::Save() {
  auto number = run_.deps.store.Increment(absl::StrCat("checkpoint/", run_.job.name));
  if (!run_.Check(number.status()) || !run_.Commit()) return;
  PooledActor& trainer = *run_.pool.trainer();
  checkpoint_.Clear();
  checkpoint_.set_number(static_cast<uint32_t>(*number));
  checkpoint_.set_update(run_.job.updates_done);
  checkpoint_.set_path(absl::StrCat(run_.job.output, "/checkpoints/", *number));
  v1::SaveRequest request;
  *request.mutable_fence() = run_.FenceOf(trainer.actor, absl::StrCat("save/", *number));
  request.set_path(checkpoint_.path());
  request.set_controller_state(
      absl::StrCat("update=", run_.job.updates_done, " data_epoch=", run_.job.cursor_epoch,
                   " position=", run_.job.cursor_position, " config=", run_.job.config_hash));
  trainer.trainer->Save(request, kSaveDeadline, Expect(&TrainerWork::OnSaved));
}

void TrainerWork::OnSaved(absl::StatusOr<v1::SaveReply> reply) {
  NoteSpan("save", absl::StrCat("checkpoint ", checkpoint_.number()));
  if (!reply.ok()) {
    std::string kept =
        run_.checkpoints.empty()
            ? "there is no earlier one"
            : absl::StrCat("checkpoint ", run_.checkpoints.back().number(), " is intact");
    return Failed(absl::StrCat("write checkpoint ", checkpoint_.number(), " (", kept, ")"),
                  reply.status());
  }
  failures_ = 0;
  checkpoint_.set_bytes(reply->bytes());
  checkpoint_.set_created_at(absl::ToDoubleSeconds(run_.deps.clock.Now() - absl::UnixEpoch()));
  run_.Check(run_.deps.store.InsertCheckpoint(run_.job.name, checkpoint_));
  run_.checkpoints.push_back(checkpoint_);
  v1::JobEvent event;
  *event.mutable_checkpoint() = checkpoint_;
  run_.Emit(std::move(event));
  RemoveOldCheckpoints();
  ForgetOldRollouts();
}

void TrainerWork::RemoveOldCheckpoints() {
  size_t keep = std::max<size_t>(1, run_.job.config.checkpoint().keep());
  std::vector<std::string> paths;
  while (run_.checkpoints.size() > keep) {
    run_.Check(run_.deps.store.DeleteCheckpoint(run_.job.name, run_.checkpoints.front().number()));
    paths.push_back(run_.checkpoints.front().path());
    run_.checkpoints.erase(run_.checkpoints.begin());
  }
  if (!run_.Commit()) return;
  for (const std::string& path : paths) run_.deps.recorder.RemoveCheckpoint(path);
}

void TrainerWork::ForgetOldRollouts() {
  const uint64_t keep = run_.job.config.checkpoint().keep_rollouts();
  if (keep == 0 || checkpoint_.update() <= keep) return;
  auto segments = run_.ledger.ForgetRollouts(checkpoint_.update() - keep);
  if (!run_.Check(segments.status()) || !run_.Commit()) return;
  run_.ledger.RemoveSegments(*segments);
}

void TrainerWork::Export() {
  PooledActor& trainer = *run_.pool.trainer();
  v1::SaveRequest request;
  // The lineage makes the name new after a restore: a folder that is there is never written again.
  *request.mutable_fence() =
      run_.FenceOf(trainer.actor, absl::StrCat("export/", version_.lineage, ".", version_.number));
  request.set_path(absl::StrCat(run_.job.output, "/model"));
  request.set_export_only(true);
  trainer.trainer->Save(request, kSaveDeadline, Expect(&TrainerWork::OnExported));
}

void TrainerWork::OnExported(absl::StatusOr<v1::SaveReply> reply) {
  bool there = absl::IsAlreadyExists(reply.status());  // written before a crash
  if (!reply.ok() && !there) return Failed("export the final weights", reply.status());
  failures_ = 0;
  run_.exported = true;
}

absl::StatusOr<TrainingBatch> TrainerWork::Batch(uint64_t update,
                                                 const std::vector<uint64_t>& orders) {
  if (run_.plan.kind == Plan::Kind::kRollouts) {
    RolloutBatchOptions options{.greedy_sibling = run_.plan.greedy_sibling, .prompts = run_.deps.train};
    const v1::GrpoConfig* rl = config::PolicyGradientOf(run_.job.config);
    if (rl != nullptr && DrawsFromAll(*rl)) options.current = run_.Current();
    for (const v1::RewardConfig& reward : run_.job.config.rewards()) {
      if (reward.has_environment()) options.environment = config::NameOfReward(reward);
    }
    return BatchOfRollouts(run_.ledger, orders, update, options);
  }
  return BatchOfTexts(run_.ledger, *run_.deps.train, orders,
                      run_.job.config.sft().train_on_prompt());
}

void TrainerWork::Validate(PromptSource& prompts, uint64_t first, OnScores on_scores) {
  v1::ScorePolicyRequest request;
  request.set_measure(config::MeasuresHeldOut(run_.job.config));
  uint64_t tokens = 0, line = first;
  for (; line < prompts.size() && tokens < kValidatedTokens; ++line) {
    absl::StatusOr<std::vector<v1::TrainingSequence>> sequences =
        SequencesOfLine(prompts, line, 0, run_.job.config.sft().train_on_prompt());
    if (!run_.Check(sequences.status())) return;
    for (v1::TrainingSequence& sequence : *sequences) {
      tokens += static_cast<uint64_t>(sequence.token_ids_size());
      *request.add_sequences() = std::move(sequence);
    }
  }
  validated_lines_ = line - first;
  on_scores_ = std::move(on_scores);
  run_.pool.trainer()->trainer->Score(request, kUpdateDeadline, Expect(&TrainerWork::OnValidated));
}

void TrainerWork::OnValidated(absl::StatusOr<v1::ScorePolicyReply> reply) {
  if (!reply.ok()) return Failed("score the held-out data", reply.status());
  failures_ = 0;
  on_scores_(validated_lines_, *reply);
}

void TrainerWork::Train(uint64_t count) {
  const uint64_t update = run_.job.updates_done + 1;
  orders_ = run_.ledger.GroupsOf(update);
  if (orders_.empty()) {
    orders_ = run_.ledger.Ready(!run_.plan.out_of_order);
    orders_.resize(std::min<size_t>(orders_.size(), count));
    std::sort(orders_.begin(), orders_.end());  // as it will be read after a restart
    if (!run_.Check(run_.ledger.Training(update, orders_)) || !run_.Commit()) return;
  }
  absl::StatusOr<TrainingBatch> batch = Batch(update, orders_);
  if (!run_.Check(batch.status())) return;
  batch_metrics_ = std::move(batch->metrics);
  PooledActor& trainer = *run_.pool.trainer();
  update_.Clear();
  *update_.mutable_fence() =
      run_.FenceOf(trainer.actor, absl::StrCat("update/", run_.job.lineage, "/", update));
  update_.set_update(update);
  const bool rounded_apart = run_.job.config.model().kv_cache() == v1::KV_FORMAT_FP8_ROLLOUT;
  update_.set_no_promise(rounded_apart || !run_.pool.BuildDifference().empty());
  update_.mutable_sequences()->Reserve(static_cast<int>(batch->sequences.size()));
  for (v1::TrainingSequence& sequence : batch->sequences) {
    *update_.add_sequences() = std::move(sequence);
  }
  wanted_ = {.lineage = run_.job.lineage, .number = update};
  taught_ = 0;
  return run_.plan.teacher ? AskTeacher() : SendUpdate();
}

void TrainerWork::OnUpdated(absl::StatusOr<v1::UpdateReply> reply) {
  if (absl::IsAborted(reply.status())) return Skip(reply.status());
  if (!reply.ok()) return Failed(absl::StrCat("make update ", wanted_.number), reply.status());
  Version made = FromProto(reply->version());
  if (!(made == wanted_)) {
    return run_.Fail(absl::StrCat("trainer made version ", made.lineage, ".", made.number,
                                  ", wanted ", wanted_.lineage, ".", wanted_.number));
  }
  failures_ = 0;
  version_ = made;
  digest_ = reply->digest();
  run_.Check(run_.ledger.Consumed(wanted_.number,
                                  {reply->advantages().begin(), reply->advantages().end()},
                                  run_.plan.group_size, reply->policy_figures()));
  run_.job.updates_done = wanted_.number;
  run_.job.digest = digest_;
  run_.job.skipped_in_row = 0;
  Record(*reply);
}

void TrainerWork::Skip(const absl::Status& status) {
  JobRecord& job = run_.job;
  for (uint64_t order : orders_) {
    run_.Check(run_.ledger.Drop(order, absl::StrCat("update ", wanted_.number, " was skipped: ",
                                                    std::string(status.message()))));
  }
  ++job.skipped_in_row;
  run_.Tell(
      absl::StrCat("update ", wanted_.number, " was skipped: ", std::string(status.message())));
  run_.SaveJob();
  if (!run_.Commit()) return;
  if (job.skipped_in_row > job.config.failure().max_skipped_updates()) {
    run_.Fail(absl::StrCat("update ", wanted_.number, ": ", std::string(status.message()), "; ",
                           job.skipped_in_row, " in a row were skipped, none was applied"));
  }
}

void TrainerWork::Record(const v1::UpdateReply& reply) {
  WorkTimes& times = run_.times;
  absl::Time now = run_.deps.clock.Now();
  v1::UpdateRecord record;
  record.set_update(wanted_.number);
  record.set_max_updates(run_.plan.updates);
  for (const v1::Metric& metric : batch_metrics_) *record.add_metrics() = metric;
  for (const v1::Metric& metric : reply.metrics()) {
    bool known = std::any_of(batch_metrics_.begin(), batch_metrics_.end(),
                             [&](const v1::Metric& own) { return own.name() == metric.name(); });
    if (!known) *record.add_metrics() = metric;
  }
  absl::Duration train = now - started_;
  absl::Duration total = std::max(now - times.last_update, train);
  auto span = [](absl::Time begin, absl::Time end) {  // nothing: begin is in the future
    return absl::ToDoubleSeconds(std::max(end - begin, absl::ZeroDuration()));
  };
  AddMetric(record, "seconds", absl::ToDoubleSeconds(total));
  AddMetric(record, "train_seconds", absl::ToDoubleSeconds(train));
  if (run_.plan.kind == Plan::Kind::kRollouts) {
    AddMetric(record, "generate_seconds", span(times.generate_begin, times.generate_end));
    AddMetric(record, "score_seconds", span(times.score_begin, times.score_end));
    AddMetric(record, "sync_seconds", absl::ToDoubleSeconds(times.sync));
  }
  for (const v1::Metric& metric : batch_metrics_) {
    if (metric.name() != "tokens" || total <= absl::ZeroDuration()) continue;
    AddMetric(record, "tokens_per_second", metric.value() / absl::ToDoubleSeconds(total));
  }
  AddMetric(record, "lineage", static_cast<double>(wanted_.lineage));
  if (run_.plan.drops_stale) AddMetric(record, "stale_groups", static_cast<double>(std::exchange(run_.stale_groups, 0)));
  v1::JobEvent event;
  *event.mutable_update() = record;
  NoteSpan("train", absl::StrCat("update ", wanted_.number));
  record.mutable_spans()->Assign(times.spans.begin(), times.spans.end());
  times = WorkTimes{.last_update = now};
  run_.Check(run_.deps.store.PutUpdate(run_.job.name, record));
  run_.job.figures = ListedFigures(record);
  run_.SaveJob();
  run_.Emit(std::move(event));
  if (reply.has_mismatch()) {
    const v1::Mismatch& first = reply.mismatch();
    run_.Tell(absl::StrCat("update ", wanted_.number, ": generator and trainer disagree under the same weights: rollout ",
                           first.sequence(), ", token ", first.target(), " of the completion: log-prob ",
                           first.behaviour_logprob(), " and ", first.policy_logprob(),
                           "; see the metrics mismatch_tokens and mismatch_max"));
  }
  if (run_.Commit()) run_.deps.recorder.OnUpdate(run_.job, record);
}

}  // namespace rein::services

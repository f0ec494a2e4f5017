// Ledger says for every RolloutGroup of a job where it stands; it is what makes "each prompt of
// each data epoch is trained on once, or dropped with a reason" true across crashes.
//
//   issued -> generating(version) -> finished -> scored -> training(update) -> consumed(update)
//   any state before training -> dropped(reason);  a skipped Update drops its groups
//   RollBack(update): training and consumed groups of later updates -> scored
//
// Every call writes to the store's open transaction; the caller commits before it lets anything
// happen that depends on the write. Groups are named by their order of issue, from 0. Not
// thread-safe.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "rein/v1/controller.pb.h"
#include "services/controller/segment_log.h"
#include "services/controller/store.h"

namespace rein::services {

enum class GroupState {
  kIssued = 0,
  kGenerating = 1,
  kFinished = 2,
  kScored = 3,
  kTraining = 4,
  kConsumed = 5,
  kDropped = 6,
};

// One sibling of a group.
struct Sibling {
  bool stored = false;
  bool scored = false;  // its RewardResult is there; an error counts
  bool failed = false;  // it could not be scored: never trained on
  RecordPlace place;
  std::optional<uint32_t> figures_segment;  // where what the trainer said of its tokens stands, if anywhere
  double reward = 0;
};

struct Group {
  v1::GroupId id;
  uint64_t order = 0;
  GroupState state = GroupState::kIssued;
  v1::PolicyVersion version;  // in use when the generation of its first siblings began
  uint64_t update = 0;        // kTraining, kConsumed; kScored: the one that it was rolled back from
  std::string reason;         // kDropped
  std::vector<Sibling> siblings;

  std::vector<uint32_t> MissingSiblings() const;
  size_t Usable() const;  // stored, and not failed
};

class Ledger {
 public:
  // Reads what the store knows of the job. `store` must outlive the ledger.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(Store& store, const std::string& job);

  // A new group; `siblings` 0 for a job that generates nothing: then it is scored at once.
  absl::StatusOr<uint64_t> Issue(const v1::GroupId& id, uint32_t siblings);
  absl::Status Generating(uint64_t order, const v1::PolicyVersion& version);
  // Keeps a finished sibling. A sibling that is stored already is left alone: false. One that brings an error as its
  // reward (an episode that failed) is scored with it.
  absl::StatusOr<bool> StoreRollout(uint64_t order, const v1::StoredRollout& stored);
  // The verdict on a stored sibling. `final` false: an error that will be tried again.
  absl::Status Score(uint64_t order, uint32_t sibling, const v1::RewardResult& reward,
                     const std::vector<float>& reference_logprobs);
  // finished -> scored, once every sibling was scored.
  absl::Status Scored(uint64_t order);
  absl::Status Drop(uint64_t order, const std::string& reason);
  absl::Status Training(uint64_t update, const std::vector<uint64_t>& orders);
  using Figures = google::protobuf::RepeatedPtrField<v1::PolicyFigures>;
  // `advantages` and `figures` by group in the order of Training(), then by usable sibling below `trained_siblings`;
  // each may be empty.
  absl::Status Consumed(uint64_t update, const std::vector<double>& advantages,
                        uint32_t trained_siblings = UINT32_MAX, const Figures& figures = {});
  absl::Status RollBack(uint64_t update);
  // scored -> consumed, for a job that trains nothing.
  absl::Status Collect(uint64_t order);

  const std::map<uint64_t, Group>& groups() const { return groups_; }
  const Group* Find(uint64_t order) const;
  // The groups of an update, in batch order.
  std::vector<uint64_t> GroupsOf(uint64_t update) const;
  // Scored groups in the order in which Updates take them. `in_order`: as they were issued, up to the first that is not
  // scored; else all, those that were rolled back first, Update by Update, so that the same batches are made again.
  std::vector<uint64_t> Ready(bool in_order) const;
  // Groups that are neither consumed nor dropped, in order of issue.
  const std::map<uint64_t, GroupState>& open() const { return open_; }
  uint64_t consumed() const { return consumed_; }
  uint64_t dropped() const { return dropped_; }

  // Forgets the rollouts of Updates up to `update`, which a checkpoint must cover, and of dropped
  // groups, as far as whole segments hold nothing else. Returns these segments: RemoveSegments() takes
  // them once the caller has committed.
  absl::StatusOr<std::vector<uint32_t>> ForgetRollouts(uint64_t update);
  void RemoveSegments(const std::vector<uint32_t>& segments);

  // With rewards, reference log-probs, advantage, the trainer's figures and update, as far as they are known.
  absl::StatusOr<v1::StoredRollout> Read(uint64_t order, uint32_t sibling);
  absl::Status Sync() { return segments_->Sync(); }

  v1::LedgerSummary Summary() const;

 private:
  Ledger(Store& store, std::string job, std::unique_ptr<SegmentLog> segments)
      : store_(store), job_(std::move(job)), segments_(std::move(segments)) {}

  absl::Status Load();
  absl::Status LoadRollouts();
  absl::StatusOr<Group*> Require(uint64_t order, std::vector<GroupState> states,
                                 const std::string& doing);
  void Enter(Group& group, GroupState state);
  absl::Status Write(const Group& group);
  absl::Status StoreFigures(const Group& group, uint32_t sibling, const v1::PolicyFigures& figures);

  Store& store_;
  const std::string job_;
  std::unique_ptr<SegmentLog> segments_;
  std::map<uint64_t, Group> groups_;
  std::map<uint64_t, GroupState> open_;
  uint64_t consumed_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace rein::services

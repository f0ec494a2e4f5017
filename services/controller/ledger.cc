#include "services/controller/ledger.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"

namespace rein::services {
namespace {

constexpr const char* kStateNames[] = {"issued",   "generating", "finished", "scored",
                                       "training", "consumed",   "dropped"};

bool IsOpen(GroupState state) {
  return state != GroupState::kConsumed && state != GroupState::kDropped;
}

}  // namespace

std::vector<uint32_t> Group::MissingSiblings() const {
  std::vector<uint32_t> missing;
  for (uint32_t i = 0; i < siblings.size(); ++i) {
    if (!siblings[i].stored) missing.push_back(i);
  }
  return missing;
}

size_t Group::Usable() const {
  return static_cast<size_t>(std::count_if(siblings.begin(), siblings.end(),
                                           [](const Sibling& s) { return s.stored && !s.failed; }));
}

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(Store& store, const std::string& job) {
  REIN_ASSIGN_OR_RETURN(auto segments, store.OpenRollouts(job));
  auto ledger = std::unique_ptr<Ledger>(new Ledger(store, job, std::move(segments)));
  REIN_RETURN_IF_ERROR(ledger->Load());
  REIN_RETURN_IF_ERROR(ledger->LoadRollouts());
  return ledger;
}

absl::Status Ledger::Load() {
  Statement query = store_.database().Prepare(
      "SELECT sequence, data_epoch, prompt, attempt, state, lineage, version, number, siblings, "
      "reason FROM groups WHERE job = ? ORDER BY sequence");
  query.Bind(1, job_);
  while (query.Next()) {
    Group group;
    group.order = query.Unsigned(0);
    group.id.set_data_epoch(query.Unsigned(1));
    group.id.set_prompt(query.Unsigned(2));
    group.id.set_attempt(query.Unsigned(3));
    group.version.set_lineage(query.Unsigned(5));
    group.version.set_number(query.Unsigned(6));
    group.update = query.Unsigned(7);
    group.siblings.resize(query.Unsigned(8));
    group.reason = query.Bytes(9);
    auto state = static_cast<GroupState>(query.Unsigned(4));
    Group& kept = groups_[group.order] = std::move(group);
    Enter(kept, state);
  }
  return query.status();
}

absl::Status Ledger::LoadRollouts() {
  Statement query = store_.database().Prepare(
      "SELECT sequence, sibling, segment, position, score, figures_segment, figures_segment IS NULL "
      "FROM rollouts WHERE job = ?");
  query.Bind(1, job_);
  while (query.Next()) {
    auto group = groups_.find(query.Unsigned(0));
    uint64_t index = query.Unsigned(1);
    if (group == groups_.end() || index >= group->second.siblings.size()) {
      return absl::DataLossError(absl::StrCat("store: a rollout of ", job_, " has no group"));
    }
    Sibling& sibling = group->second.siblings[index];
    sibling.stored = true;
    sibling.place = {.segment = static_cast<uint32_t>(query.Unsigned(2)),
                     .offset = query.Unsigned(3)};
    if (query.Unsigned(6) == 0) sibling.figures_segment = static_cast<uint32_t>(query.Unsigned(5));
    v1::Rollout score;
    if (!score.ParseFromString(query.Bytes(4))) {
      return absl::DataLossError(absl::StrCat("store: a score of ", job_, " is damaged"));
    }
    sibling.scored = score.has_reward();
    sibling.failed = !score.reward().error().empty();
    sibling.reward = score.reward().reward();
  }
  return query.status();
}

void Ledger::Enter(Group& group, GroupState state) {
  if (group.state == GroupState::kConsumed) --consumed_;
  group.state = state;
  if (state == GroupState::kConsumed) ++consumed_;
  if (state == GroupState::kDropped) ++dropped_;
  if (IsOpen(state)) {
    open_[group.order] = state;
  } else {
    open_.erase(group.order);
  }
}

absl::Status Ledger::Write(const Group& group) {
  return store_.database()
      .Prepare(
          "UPDATE groups SET state=?, lineage=?, version=?, number=?, reason=? "
          "WHERE job=? AND sequence=?")
      .Bind(1, static_cast<uint64_t>(group.state))
      .Bind(2, group.version.lineage())
      .Bind(3, group.version.number())
      .Bind(4, group.update)
      .Bind(5, group.reason)
      .Bind(6, job_)
      .Bind(7, group.order)
      .Run();
}

absl::StatusOr<Group*> Ledger::Require(uint64_t order, std::vector<GroupState> states,
                                       const std::string& doing) {
  auto found = groups_.find(order);
  if (found == groups_.end()) {
    return absl::InternalError(absl::StrCat("ledger: cannot ", doing, " unknown group ", order));
  }
  if (std::find(states.begin(), states.end(), found->second.state) == states.end()) {
    return absl::InternalError(absl::StrCat("ledger: cannot ", doing, " group ", order, ", it is ",
                                            kStateNames[static_cast<int>(found->second.state)]));
  }
  return &found->second;
}

absl::StatusOr<uint64_t> Ledger::Issue(const v1::GroupId& id, uint32_t siblings) {
  uint64_t order = groups_.empty() ? 0 : groups_.rbegin()->first + 1;
  Group& group = groups_[order];
  group.id = id;
  group.order = order;
  group.siblings.resize(siblings);
  Enter(group, siblings > 0 ? GroupState::kIssued : GroupState::kScored);
  REIN_RETURN_IF_ERROR(store_.database()
                           .Prepare("INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, ?, '')")
                           .Bind(1, job_)
                           .Bind(2, order)
                           .Bind(3, id.data_epoch())
                           .Bind(4, id.prompt())
                           .Bind(5, id.attempt())
                           .Bind(6, static_cast<uint64_t>(group.state))
                           .Bind(7, uint64_t{siblings})
                           .Run());
  return order;
}

absl::Status Ledger::Generating(uint64_t order, const v1::PolicyVersion& version) {
  REIN_ASSIGN_OR_RETURN(Group * group,
                        Require(order, {GroupState::kIssued, GroupState::kGenerating}, "generate"));
  // What is asked for again, after some siblings were kept, is as old as these.
  if (group->MissingSiblings().size() == group->siblings.size()) group->version = version;
  Enter(*group, GroupState::kGenerating);
  return Write(*group);
}

absl::StatusOr<bool> Ledger::StoreRollout(uint64_t order, const v1::StoredRollout& stored) {
  const v1::Rollout& rollout = stored.rollout();
  auto found = groups_.find(order);
  if (found == groups_.end() || rollout.sibling() >= found->second.siblings.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("group ", order, " has no sibling ", rollout.sibling()));
  }
  Group& group = found->second;
  Sibling& sibling = group.siblings[rollout.sibling()];
  bool open = group.state == GroupState::kIssued || group.state == GroupState::kGenerating;
  if (sibling.stored || !open) return false;
  v1::Rollout verdict;
  if (!rollout.reward().error().empty()) {
    *verdict.mutable_reward() = rollout.reward();
    sibling.scored = sibling.failed = true;
  }
  REIN_ASSIGN_OR_RETURN(sibling.place, segments_->Append(stored.SerializeAsString()));
  REIN_RETURN_IF_ERROR(store_.database()
                           .Prepare("INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, NULL)")
                           .Bind(1, job_)
                           .Bind(2, order)
                           .Bind(3, uint64_t{rollout.sibling()})
                           .Bind(4, uint64_t{sibling.place.segment})
                           .Bind(5, sibling.place.offset)
                           .Bind(6, verdict.SerializeAsString())
                           .Run());
  sibling.stored = true;
  if (!group.MissingSiblings().empty()) return true;
  Enter(group, GroupState::kFinished);
  REIN_RETURN_IF_ERROR(Write(group));
  return true;
}

absl::Status Ledger::Score(uint64_t order, uint32_t sibling, const v1::RewardResult& reward,
                           const std::vector<float>& reference_logprobs) {
  REIN_ASSIGN_OR_RETURN(Group * group, Require(order, {GroupState::kFinished}, "score"));
  Sibling& scored = group->siblings.at(sibling);
  v1::Rollout score;  // only what scoring adds
  *score.mutable_reward() = reward;
  score.mutable_reference_logprobs()->Add(reference_logprobs.begin(), reference_logprobs.end());
  scored.scored = true;
  scored.failed = !reward.error().empty();
  scored.reward = reward.reward();
  return store_.database()
      .Prepare("UPDATE rollouts SET score=? WHERE job=? AND sequence=? AND sibling=?")
      .Bind(1, score.SerializeAsString())
      .Bind(2, job_)
      .Bind(3, order)
      .Bind(4, uint64_t{sibling})
      .Run();
}

absl::Status Ledger::Scored(uint64_t order) {
  REIN_ASSIGN_OR_RETURN(Group * group, Require(order, {GroupState::kFinished}, "close"));
  Enter(*group, GroupState::kScored);
  return Write(*group);
}

absl::Status Ledger::Drop(uint64_t order, const std::string& reason) {
  REIN_ASSIGN_OR_RETURN(
      Group * group, Require(order,
                             {GroupState::kIssued, GroupState::kGenerating, GroupState::kFinished,
                              GroupState::kScored, GroupState::kTraining},
                             "drop"));
  group->reason = reason;
  group->update = 0;
  Enter(*group, GroupState::kDropped);
  return Write(*group);
}

absl::Status Ledger::Training(uint64_t update, const std::vector<uint64_t>& orders) {
  for (uint64_t order : orders) {
    REIN_ASSIGN_OR_RETURN(Group * group, Require(order, {GroupState::kScored}, "train"));
    group->update = update;
    Enter(*group, GroupState::kTraining);
    REIN_RETURN_IF_ERROR(Write(*group));
  }
  return absl::OkStatus();
}

absl::Status Ledger::Consumed(uint64_t update, const std::vector<double>& advantages,
                              uint32_t trained_siblings, const Figures& figures) {
  size_t next = 0;
  for (uint64_t order : GroupsOf(update)) {
    REIN_ASSIGN_OR_RETURN(Group * group, Require(order, {GroupState::kTraining}, "consume"));
    Enter(*group, GroupState::kConsumed);
    REIN_RETURN_IF_ERROR(Write(*group));
    const uint32_t trained =
        std::min(trained_siblings, static_cast<uint32_t>(group->siblings.size()));
    for (uint32_t i = 0; i < trained; ++i) {
      if (group->siblings[i].failed) continue;
      const size_t place = next++;
      if (place < static_cast<size_t>(figures.size())) {
        REIN_RETURN_IF_ERROR(StoreFigures(*group, i, figures[static_cast<int>(place)]));
      }
      if (place >= advantages.size()) continue;
      REIN_RETURN_IF_ERROR(
          store_.database()
              .Prepare("UPDATE rollouts SET advantage=? WHERE job=? AND sequence=? AND sibling=?")
              .Bind(1, advantages[place])
              .Bind(2, job_)
              .Bind(3, order)
              .Bind(4, uint64_t{i})
              .Run());
    }
  }
  return absl::OkStatus();
}

absl::Status Ledger::StoreFigures(const Group& group, uint32_t sibling, const v1::PolicyFigures& figures) {
  if (figures.logprobs().empty() || !group.siblings[sibling].stored) return absl::OkStatus();
  v1::Rollout trained;  // only what training adds
  *trained.mutable_policy_logprobs() = figures.logprobs();
  *trained.mutable_policy_entropies() = figures.entropies();
  REIN_ASSIGN_OR_RETURN(RecordPlace place, segments_->Append(trained.SerializeAsString()));
  groups_[group.order].siblings[sibling].figures_segment = place.segment;
  return store_.database()
      .Prepare("UPDATE rollouts SET figures_segment=?, figures_position=? WHERE job=? AND sequence=? AND sibling=?")
      .Bind(1, uint64_t{place.segment})
      .Bind(2, place.offset)
      .Bind(3, job_)
      .Bind(4, group.order)
      .Bind(5, uint64_t{sibling})
      .Run();
}

absl::Status Ledger::RollBack(uint64_t update) {
  for (auto& [order, group] : groups_) {
    bool trained = group.state == GroupState::kTraining || group.state == GroupState::kConsumed;
    if (!trained || group.update <= update) continue;
    Enter(group, GroupState::kScored);
    REIN_RETURN_IF_ERROR(Write(group));
  }
  return absl::OkStatus();
}

absl::Status Ledger::Collect(uint64_t order) {
  REIN_ASSIGN_OR_RETURN(Group * group, Require(order, {GroupState::kScored}, "collect"));
  Enter(*group, GroupState::kConsumed);
  return Write(*group);
}

absl::StatusOr<std::vector<uint32_t>> Ledger::ForgetRollouts(uint64_t update) {
  std::set<uint32_t> needed = {segments_->newest()};
  for (const auto& [order, group] : groups_) {
    bool over = group.state == GroupState::kDropped ||
                (group.state == GroupState::kConsumed && group.update <= update);
    for (const Sibling& sibling : group.siblings) {
      if (!sibling.stored || over) continue;
      needed.insert(sibling.place.segment);
      if (sibling.figures_segment) needed.insert(*sibling.figures_segment);
    }
  }
  std::vector<uint32_t> segments = segments_->List();
  std::erase_if(segments, [&](uint32_t segment) { return needed.count(segment) > 0; });
  for (uint32_t segment : segments) {
    REIN_RETURN_IF_ERROR(store_.database()
                             .Prepare("DELETE FROM rollouts WHERE job=? AND segment=?")
                             .Bind(1, job_)
                             .Bind(2, uint64_t{segment})
                             .Run());
    REIN_RETURN_IF_ERROR(
        store_.database()
            .Prepare("UPDATE rollouts SET figures_segment=NULL, figures_position=NULL WHERE job=? AND figures_segment=?")
            .Bind(1, job_)
            .Bind(2, uint64_t{segment})
            .Run());
  }
  for (auto& [order, group] : groups_) {
    for (Sibling& sibling : group.siblings) {
      if (needed.count(sibling.place.segment) == 0) sibling.stored = false;
      if (needed.count(sibling.figures_segment.value_or(segments_->newest())) == 0) sibling.figures_segment.reset();
    }
  }
  return segments;
}

void Ledger::RemoveSegments(const std::vector<uint32_t>& segments) {
  for (uint32_t segment : segments) segments_->Remove(segment);
}

const Group* Ledger::Find(uint64_t order) const {
  auto found = groups_.find(order);
  return found == groups_.end() ? nullptr : &found->second;
}

std::vector<uint64_t> Ledger::GroupsOf(uint64_t update) const {
  std::vector<uint64_t> orders;
  for (const auto& [order, group] : groups_) {
    bool trained = group.state == GroupState::kTraining || group.state == GroupState::kConsumed;
    if (trained && group.update == update) orders.push_back(order);
  }
  return orders;
}

std::vector<uint64_t> Ledger::Ready(bool in_order) const {
  std::vector<uint64_t> orders;
  for (const auto& [order, state] : open_) {
    if (state == GroupState::kScored) orders.push_back(order);
    else if (in_order) break;
  }
  if (in_order) return orders;
  const auto place = [this](uint64_t order) {
    const uint64_t update = groups_.at(order).update;
    return update == 0 ? UINT64_MAX : update;
  };
  std::stable_sort(orders.begin(), orders.end(), [&](uint64_t a, uint64_t b) { return place(a) < place(b); });
  return orders;
}

absl::StatusOr<v1::StoredRollout> Ledger::Read(uint64_t order, uint32_t sibling) {
  const Group* group = Find(order);
  if (group == nullptr || sibling >= group->siblings.size() || !group->siblings[sibling].stored) {
    return absl::NotFoundError(absl::StrCat("group ", order, " has no stored sibling ", sibling));
  }
  REIN_ASSIGN_OR_RETURN(std::string bytes, segments_->Read(group->siblings[sibling].place));
  v1::StoredRollout stored;
  if (!stored.ParseFromString(bytes)) return absl::DataLossError("a stored rollout is damaged");
  Statement query = store_.database().Prepare(
      "SELECT score, advantage, advantage IS NULL, figures_segment, figures_position, figures_segment IS NULL "
      "FROM rollouts "
      "WHERE job=? AND sequence=? AND sibling=?");
  query.Bind(1, job_).Bind(2, order).Bind(3, uint64_t{sibling});
  if (!query.Next()) {
    REIN_RETURN_IF_ERROR(query.status());
    return absl::DataLossError("a stored rollout has lost its index");
  }
  v1::Rollout score;
  if (!score.ParseFromString(query.Bytes(0))) return absl::DataLossError("a score is damaged");
  stored.mutable_rollout()->MergeFrom(score);
  if (query.Unsigned(2) == 0) stored.mutable_rollout()->set_advantage(query.Double(1));
  if (query.Unsigned(5) == 0) {
    const RecordPlace place{.segment = static_cast<uint32_t>(query.Unsigned(3)), .offset = query.Unsigned(4)};
    v1::Rollout trained;
    REIN_ASSIGN_OR_RETURN(bytes, segments_->Read(place));
    if (!trained.ParseFromString(bytes)) return absl::DataLossError("a stored rollout's figures are damaged");
    stored.mutable_rollout()->MergeFrom(trained);
  }
  if (group->state != GroupState::kScored) stored.set_update(group->update);
  return stored;
}

v1::LedgerSummary Ledger::Summary() const {
  v1::LedgerSummary summary;
  uint64_t count[7] = {};
  std::set<std::tuple<uint64_t, uint64_t>> consumed;
  for (const auto& [order, group] : groups_) {
    ++count[static_cast<int>(group.state)];
    for (const Sibling& sibling : group.siblings) {
      if (sibling.stored) summary.set_rollouts_stored(summary.rollouts_stored() + 1);
    }
    if (group.state == GroupState::kDropped) {
      v1::DroppedGroup* dropped = summary.add_dropped();
      *dropped->mutable_group() = group.id;
      dropped->set_reason(group.reason);
    }
    if (group.state == GroupState::kConsumed &&
        !consumed.emplace(group.id.data_epoch(), group.id.prompt()).second) {
      summary.set_duplicates(summary.duplicates() + 1);
    }
  }
  summary.set_in_flight(count[0] + count[1]);
  summary.set_finished(count[2]);
  summary.set_scored(count[3]);
  summary.set_training(count[4]);
  summary.set_consumed(count[5]);
  return summary;
}

}  // namespace rein::services

#include "tests/gpu/rank_process.h"

#include <ATen/ATen.h>

#include <cstdlib>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/models/arena.h"
#include "common/status/fatal.h"
#include "common/weights/digest.h"
#include "trainer/policy_trainer.h"

namespace rein::gpu {
namespace {

constexpr int64_t kElements = 40'000'003;

at::Tensor RankTensor(int rank, int64_t elements) {
  return at::remainder(at::arange(elements, at::TensorOptions(at::kCUDA).dtype(at::kFloat)), 1009).add_(rank);
}

std::string Collectives(parallel::ProcessGroup& group) {
  const int size = group.size();
  at::Tensor sum = RankTensor(group.rank(), kElements);
  if (absl::Status status = group.AllReduceSum(sum); !status.ok()) return status.ToString();
  // Whole numbers below 2^24: every order of summation gives the same.
  if (!at::equal(sum, RankTensor(0, kElements) * size + size * (size - 1) / 2)) return "a sum is wrong";
  at::Tensor host = at::full({3}, group.rank(), at::kDouble);
  if (absl::Status status = group.AllReduceSum(host); !status.ok()) return status.ToString();
  if (!at::equal(host, at::full({3}, size * (size - 1) / 2, at::kDouble))) return "a sum on the host is wrong";
  for (int root = 0; root < size; ++root) {
    at::Tensor sent = RankTensor(group.rank(), 1001).to(at::kBFloat16);
    if (absl::Status status = group.Broadcast(sent, root); !status.ok()) return status.ToString();
    if (!at::equal(sent, RankTensor(root, 1001).to(at::kBFloat16))) return absl::StrCat("root ", root, " is wrong");
  }
  at::Tensor whole = at::zeros({size * 100}, at::kCUDA);
  std::vector<at::Tensor> parts;  // of 50, 150, 100, 100, ... elements
  for (int rank = 0, begin = 0; rank < size; ++rank) {
    const int length = rank == 0 ? 50 : rank == 1 ? 150 : 100;
    parts.push_back(whole.narrow(0, begin, length));
    begin += length;
  }
  at::Tensor own = at::full_like(parts[group.rank()], group.rank() + 1);
  if (absl::Status status = group.AllGather(own, parts); !status.ok()) return status.ToString();
  for (int rank = 0; rank < size; ++rank) {
    if (!at::equal(parts[rank], at::full_like(parts[rank], rank + 1))) return absl::StrCat("part ", rank, " is wrong");
  }
  return "ok";
}

std::string Train(parallel::ProcessGroup& group) {
  trainer::TrainerSettings settings;
  settings.model_path = "configs/models/digits";
  settings.random_weights = true;
  settings.device = "cuda:0";
  settings.dtype = "float32";
  settings.microbatch_tokens = 40;
  settings.schedule.peak = 1e-3;
  auto made = trainer::PolicyTrainer::Create(settings, trainer::Sft(trainer::Aggregation::kTokenMean), group);
  if (!made.ok()) return made.status().ToString();
  std::vector<trainer::TrainingSequence> batch;
  for (int64_t i = 0; i < 12; ++i) {
    trainer::TrainingSequence s{.id = absl::StrCat(i)};
    for (int64_t t = 0; t < 5 + i % 7; ++t) {
      s.token_ids.push_back((i * 5 + t * 3) % 23);
      s.loss_mask.push_back(t >= 2);
    }
    batch.push_back(s);
  }
  std::vector<std::string> losses;
  for (int update = 0; update < 2; ++update) {
    auto result = (*made)->Update(batch);
    if (!result.ok()) return result.status().ToString();
    losses.push_back(absl::StrCat(result->metrics[0].value));
  }
  const uint64_t digest = weights::CombineDigests(*models::ArenaDigests((*made)->registry(), (*made)->compute()));
  return absl::StrCat(absl::StrJoin(losses, " "), " ", digest);
}

std::string Hang(parallel::ProcessGroup& group) {
  at::Tensor numbers = RankTensor(group.rank(), kElements);
  absl::Status status;
  while (status.ok()) status = group.AllReduceSum(numbers);
  return absl::StrCat(IsFatal(status) ? "fatal " : "", status.ToString());
}

}  // namespace

std::string RunTask(const std::string& task, parallel::ProcessGroup& group) {
  if (task == "collectives") return Collectives(group);
  if (task == "train") return Train(group);
  if (task == "hang") return Hang(group);
  return "unknown task";
}

int RankMain(int argc, char** argv) {
  if (argc != 5) return 2;
  parallel::GroupPlace place{.rank = std::atoi(argv[0]), .size = std::atoi(argv[1]), .address = argv[2]};
  place.timeout = absl::Seconds(std::atof(argv[3]));
  auto group = parallel::JoinGroup(place, "cuda:0");
  std::cout << (group.ok() ? "joined" : group.status().ToString()) << std::endl;
  if (!group.ok()) return 1;
  std::cout << RunTask(argv[4], **group) << std::endl;
  return 0;
}

RankGroup::RankGroup(int size, const std::string& task, absl::Duration timeout) {
  setenv("NCCL_HOSTID", "sender", 1);  // once for all tests: NCCL reads it once
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  setenv("NCCL_IB_DISABLE", "1", 1);
  auto listener = *parallel::RankListener::Create("127.0.0.1");
  for (int rank = 1; rank < size; ++rank) {
    others_.push_back(std::make_unique<TestProcess>(
        absl::StrCat("rank-", rank),
        std::vector<std::string>{"--rank", absl::StrCat(rank), absl::StrCat(size), listener->address(),
                                 absl::StrCat(absl::ToDoubleSeconds(timeout)), task}));
  }
  parallel::GroupPlace place{.size = size, .listener = listener.get(), .timeout = timeout};
  group_ = *parallel::JoinGroup(place, "cuda:0");
  for (auto& other : others_) {
    if (std::string joined = other->ReadLine(); joined != "joined") {
      std::cerr << joined << std::endl;
      std::abort();
    }
  }
}

}  // namespace rein::gpu

#include "tests/unit/common/parallel/rank_threads.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace rein::parallel {

void RunRanks(int size, const std::function<void(ProcessGroup&)>& body) {
  auto listener = *RankListener::Create("127.0.0.1");
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      GroupPlace place{.rank = rank, .size = size, .timeout = absl::Seconds(50)};
      if (rank == 0) place.listener = listener.get();
      place.address = listener->address();
      auto group = JoinGroup(place, "cpu");
      ASSERT_TRUE(group.ok()) << group.status();
      body(**group);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace rein::parallel

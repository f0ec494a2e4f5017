#include "trainer/advantages/leave_one_out.h"

#include "trainer/advantages/group_members.h"

namespace rein::trainer {

std::vector<double> LeaveOneOut(const std::vector<double>& reward,
                                const std::vector<uint32_t>& group) {
  std::vector<double> advantage(reward.size());
  for (const auto& [label, members] : GroupMembers(group)) {
    if (members.size() > 1 && AllEqual(reward, members)) continue;
    double sum = 0;
    for (size_t i : members) sum += reward[i];
    const double others = static_cast<double>(members.size()) - 1;
    for (size_t i : members) {
      advantage[i] = reward[i] - (others > 0 ? (sum - reward[i]) / others : 0);
    }
  }
  return advantage;
}

}  // namespace rein::trainer

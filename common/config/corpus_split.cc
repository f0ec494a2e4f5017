#include "common/config/corpus_split.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace rein::config {

absl::StatusOr<std::vector<double>> SplitShares(const std::string& split) {
  const std::vector<std::string> parts = absl::StrSplit(split, ',');
  std::vector<double> shares;
  double sum = 0;
  for (const std::string& part : parts) {
    double share = 0;
    if (!absl::SimpleAtod(part, &share) || !std::isfinite(share) || share < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("wants shares of at least 0 such as 969,30,1; got '", split, "'"));
    }
    shares.push_back(share);
    sum += share;
  }
  if (shares.size() > 3) {
    return absl::InvalidArgumentError(absl::StrCat("has ", shares.size(), " shares, at most 3 have a meaning"));
  }
  if (shares[0] == 0) return absl::InvalidArgumentError("leaves nothing to train on");
  for (double& share : shares) share /= sum;
  return shares;
}

bool HoldsOut(const v1::JobConfig& job) {
  if (!job.has_pretrain()) return false;
  absl::StatusOr<std::vector<double>> shares = SplitShares(job.pretrain().split());
  return shares.ok() && shares->size() > 1 && (*shares)[1] > 0;
}

}  // namespace rein::config

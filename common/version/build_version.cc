#include "common/version/build_version.h"

#include "absl/strings/str_cat.h"

#include "common/version/build_stamp.h"

namespace rein::version {

v1::BuildVersion ThisBuild(const LinkedVersions& linked) {
  v1::BuildVersion build;
  build.set_release(kRelease);
  build.set_git_hash(kGitHash);
  build.set_flavour(kFlavour);
  build.set_torch(linked.torch);
  build.set_cuda(linked.cuda);
  build.set_nccl(linked.nccl);
  return build;
}

std::string Describe(const std::string& program, const v1::BuildVersion& build) {
  std::string line =
      absl::StrCat(program, " ", build.release(), " (", build.git_hash(), ", ", build.flavour());
  if (!build.torch().empty()) absl::StrAppend(&line, ", LibTorch ", build.torch());
  if (!build.cuda().empty()) absl::StrAppend(&line, ", CUDA ", build.cuda());
  if (!build.nccl().empty()) absl::StrAppend(&line, ", NCCL ", build.nccl());
  return line + ")";
}

}  // namespace rein::version

// ThisBuild names the sources and the flavour that a program was made from.
//
// Programs that link LibTorch, CUDA or NCCL pass the versions that they found at run time.

#pragma once

#include <string>

#include "rein/v1/policy.pb.h"

namespace rein::version {

struct LinkedVersions {
  std::string torch;
  std::string cuda;
  std::string nccl;
};

v1::BuildVersion ThisBuild(const LinkedVersions& linked = {});

// One line for --version: "rein-trainer 0.1.0 (6262556, cpu, LibTorch 2.11.0)".
std::string Describe(const std::string& program, const v1::BuildVersion& build);

}  // namespace rein::version

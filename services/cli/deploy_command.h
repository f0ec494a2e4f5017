// `rein deploy`: kubectl with the manifests of deploy/kustomize, and a look at what the cluster lacks before anything is
// applied. It does nothing that `kubectl apply -k` could not.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace rein::cli {

struct DeployFlags {
  std::string overlay;  // a name below deploy/kustomize/overlays, or a folder
  std::string kubectl = "kubectl";
  bool yes = false;
};

// `verb`: render, diff, apply, status or delete. Exit code.
int RunDeploy(const std::string& verb, const DeployFlags& flags);

// What rendered manifests need of a cluster.
struct ClusterNeeds {
  std::string name_space;
  std::vector<std::string> crd_groups;  // API groups that are not Kubernetes's own
  std::vector<std::string> secrets;     // that nothing in the manifests makes
  double gpus = 0;                      // of all replicas
  bool default_storage_class = false;   // a claim names no class
};

// INVALID_ARGUMENT for text that is no manifest.
absl::StatusOr<ClusterNeeds> NeedsOf(const std::string& manifests);

}  // namespace rein::cli

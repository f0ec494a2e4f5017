#include "services/cli/deploy_command.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>
#include <yaml-cpp/yaml.h>

#include "common/status/status_macros.h"
#include "services/cli/exit_code.h"
#include "services/cli/local_command.h"
#include "services/cli/output.h"
#include "services/cli/run_program.h"

namespace rein::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kGpu[] = "nvidia.com/gpu";
constexpr char kDefaultClass[] = "storageclass.kubernetes.io/is-default-class";

// Groups that every cluster serves.
bool IsOwnGroup(const std::string& group) {
  return group.find('.') == std::string::npos || absl::EndsWith(group, ".k8s.io");
}

// API groups of .k8s.io that are installed by hand all the same.
bool IsExtension(const std::string& group) {
  return absl::EndsWith(group, ".x-k8s.io");
}

std::string Text(const YAML::Node& node) { return node.IsDefined() && node.IsScalar() ? node.as<std::string>() : ""; }

// Null where there is no such key, or nothing to look it up in.
YAML::Node At(const YAML::Node& node, const std::string& key) {
  return node.IsMap() && node[key].IsDefined() ? YAML::Node(node[key]) : YAML::Node();
}

// Every node below, in any order.
void Walk(const YAML::Node& node, const std::function<void(const YAML::Node&)>& visit) {
  visit(node);
  if (node.IsMap()) {
    for (const auto& entry : node) Walk(entry.second, visit);
  } else if (node.IsSequence()) {
    for (const auto& item : node) Walk(item, visit);
  }
}

double GpusOf(const YAML::Node& object) {
  double gpus = 0;
  Walk(object, [&](const YAML::Node& node) {
    if (!node.IsMap() || !node["limits"].IsDefined() || !node["limits"].IsMap()) return;
    if (node["limits"][kGpu].IsDefined()) gpus += node["limits"][kGpu].as<double>();
  });
  const YAML::Node replicas = At(At(object, "spec"), "replicas");
  return replicas.IsScalar() ? gpus * replicas.as<double>() : gpus;
}

absl::StatusOr<std::string> OverlayFolder(const std::string& overlay) {
  std::error_code error;
  std::vector<std::string> tried = {overlay};
  if (overlay.find('/') == std::string::npos) {
    const fs::path program = ProgramFolder();
    for (const fs::path& root : {fs::path("."), program, program / "..", program / "../..", program / "../../.."}) {
      tried.push_back((root / "deploy/kustomize/overlays" / overlay).lexically_normal().string());
    }
  }
  for (const std::string& folder : tried) {
    if (fs::exists(folder + "/kustomization.yaml", error)) return folder;
  }
  std::string known;
  for (const std::string& folder : tried) {
    const fs::path parent = fs::path(folder).parent_path();
    if (!known.empty() || !absl::EndsWith(parent.string(), "kustomize/overlays")) continue;
    for (const auto& entry : fs::directory_iterator(parent, error)) {
      absl::StrAppend(&known, known.empty() ? "; there are " : ", ", entry.path().filename().string());
    }
  }
  return absl::NotFoundError(absl::StrCat("no overlay ", overlay, known));
}

class Cluster {
 public:
  explicit Cluster(std::string kubectl) : kubectl_(std::move(kubectl)) {}

  absl::StatusOr<std::string> Render(const std::string& folder) const {
    REIN_ASSIGN_OR_RETURN(ProgramResult run, RunProgram({kubectl_, "kustomize", folder}, "", true));
    if (run.exit_code == 0) return run.output;
    return absl::InvalidArgumentError(absl::StrCat("kubectl kustomize ", folder, " ended with code ", run.exit_code));
  }

  // The answer of kubectl get as JSON; null where it fails.
  json Get(std::vector<std::string> what) const {
    std::vector<std::string> command = {kubectl_, "get"};
    command.insert(command.end(), what.begin(), what.end());
    for (const char* flag : {"-o", "json", "--ignore-not-found"}) command.push_back(flag);
    absl::StatusOr<ProgramResult> run = RunProgram(command, "", true);
    if (!run.ok() || run->exit_code != 0) return nullptr;
    return json::parse(run->output, nullptr, /*allow_exceptions=*/false);
  }

  absl::Status CheckReachable() const {
    REIN_ASSIGN_OR_RETURN(ProgramResult run, RunProgram({kubectl_, "version", "-o", "json"}, "", true));
    json version = json::parse(run.output, nullptr, /*allow_exceptions=*/false);
    if (run.exit_code == 0 && version.is_object() && version.contains("serverVersion")) return absl::OkStatus();
    return absl::UnavailableError("kubectl reaches no cluster (kubectl config current-context; kubectl cluster-info)");
  }

  bool Serves(const std::string& group) const {
    absl::StatusOr<ProgramResult> run =
        RunProgram({kubectl_, "api-resources", "--api-group=" + group, "-o", "name"}, "", true);
    return run.ok() && run->exit_code == 0 && !run->output.empty();
  }

 private:
  const std::string kubectl_;
};

double GpusOffered(const json& nodes) {
  double gpus = 0;
  for (const json& node : nodes.is_object() ? nodes.value("items", json::array()) : json::array()) {
    const json status = node.value("status", json::object());
    const json room = status.value("allocatable", json::object());
    if (room.contains(kGpu)) gpus += std::atof(room[kGpu].get<std::string>().c_str());
  }
  return gpus;
}

bool HasDefaultClass(const json& classes) {
  for (const json& one : classes.is_object() ? classes.value("items", json::array()) : json::array()) {
    const json meta = one.value("metadata", json::object());
    if (meta.value("annotations", json::object()).value(kDefaultClass, "") == "true") return true;
  }
  return false;
}

// What the cluster lacks, each with what to do.
std::vector<std::string> Missing(const Cluster& cluster, const ClusterNeeds& needs) {
  std::vector<std::string> missing;
  for (const std::string& group : needs.crd_groups) {
    if (!cluster.Serves(group)) missing.push_back(absl::StrCat("API group ", group, ": install what serves it, or leave its component out"));
  }
  if (needs.gpus > 0) {
    const double offered = GpusOffered(cluster.Get({"nodes"}));
    if (offered == 0) {
      missing.push_back(absl::StrCat(kGpu, ": no node offers one: install NVIDIA's device plugin, or use overlay cpu-dev"));
    } else if (offered < needs.gpus) {
      missing.push_back(absl::StrCat(kGpu, ": the pods ask for ", needs.gpus, ", the nodes have ", offered));
    }
  }
  if (needs.default_storage_class && !HasDefaultClass(cluster.Get({"storageclass"}))) {
    missing.push_back("default storage class: mark one, or set storageClassName in an overlay (component nfs-storage)");
  }
  for (const std::string& secret : needs.secrets) {
    const json found = cluster.Get({"secret", secret, "-n", needs.name_space});
    if (found.is_object() && found.contains("metadata")) continue;
    missing.push_back(absl::StrCat("Secret ", needs.name_space, "/", secret, ": ",
                                   secret == "rein-tokens"
                                       ? "rein token add ada --file tokens.json; kubectl create secret generic rein-tokens --from-file=tokens.json"
                                       : "rein certs init and rein certs secrets make it, or component tls-cert-manager"));
  }
  return missing;
}

int Pass(const std::vector<std::string>& command, const std::string& input) {
  absl::StatusOr<ProgramResult> run = RunProgram(command, input, false);
  return run.ok() ? run->exit_code : PrintError(run.status());
}

// The manifests without claims on storage: what `delete` takes away.
std::string WithoutVolumes(const std::string& manifests) {
  std::string kept;
  for (const YAML::Node& object : YAML::LoadAll(manifests)) {
    const std::string kind = Text(object["kind"]);
    if (kind == "PersistentVolumeClaim" || kind == "PersistentVolume" || kind == "Namespace") continue;
    YAML::Emitter emitter;
    emitter << object;
    absl::StrAppend(&kept, "---\n", emitter.c_str(), "\n");
  }
  return kept;
}

int Apply(const Cluster& cluster, const std::string& manifests, const DeployFlags& flags) {
  absl::StatusOr<ClusterNeeds> needs = NeedsOf(manifests);
  if (!needs.ok()) return PrintError(needs.status());
  absl::Status reachable = cluster.CheckReachable();
  if (!reachable.ok()) return PrintError(reachable);
  const std::vector<std::string> missing = Missing(cluster, *needs);
  for (const std::string& one : missing) Hint(absl::StrCat("missing  ", one, "\n"));
  if (!missing.empty() && !Confirmed("apply all the same?", flags.yes)) {
    Hint("error: nothing was applied; --yes applies all the same\n");
    return kExitInvalid;
  }
  return Pass({flags.kubectl, "apply", "-f", "-"}, manifests);
}

}  // namespace

absl::StatusOr<ClusterNeeds> NeedsOf(const std::string& manifests) {
  ClusterNeeds needs;
  std::set<std::string> groups, wanted, made;
  try {
    for (const YAML::Node& object : YAML::LoadAll(manifests)) {
      if (!object.IsMap()) continue;
      const std::string version = Text(object["apiVersion"]), kind = Text(object["kind"]);
      if (version.empty() || kind.empty()) return absl::InvalidArgumentError("an object without apiVersion or kind");
      const std::string group = version.substr(0, version.find('/'));
      if (version.find('/') != std::string::npos && (!IsOwnGroup(group) || IsExtension(group))) groups.insert(group);
      if (kind == "Namespace") needs.name_space = Text(At(At(object, "metadata"), "name"));
      if (kind == "PersistentVolumeClaim" && At(At(object, "spec"), "storageClassName").IsNull()) {
        needs.default_storage_class = true;
      }
      needs.gpus += GpusOf(object);
      Walk(object, [&](const YAML::Node& node) {
        if (!node.IsMap()) return;
        const std::string secret = Text(node["secretName"]);
        if (!secret.empty()) (kind == "Certificate" ? made : wanted).insert(secret);
        if (node["secret"].IsDefined() && node["secret"].IsMap() && node["secret"]["name"].IsDefined()) {
          wanted.insert(Text(node["secret"]["name"]));  // of a projected volume
        }
      });
    }
  } catch (const YAML::Exception& wrong) {
    return absl::InvalidArgumentError(absl::StrCat("these are no manifests: ", wrong.what()));
  }
  needs.crd_groups.assign(groups.begin(), groups.end());
  std::set_difference(wanted.begin(), wanted.end(), made.begin(), made.end(), std::back_inserter(needs.secrets));
  return needs;
}

int RunDeploy(const std::string& verb, const DeployFlags& flags) {
  const Cluster cluster(flags.kubectl);
  absl::StatusOr<std::string> folder = OverlayFolder(flags.overlay);
  if (!folder.ok()) return PrintError(folder.status());
  absl::StatusOr<std::string> manifests = cluster.Render(*folder);
  if (!manifests.ok()) return PrintError(manifests.status());
  if (verb == "render") {
    Print(*manifests);
    return kExitOk;
  }
  if (verb == "apply") return Apply(cluster, *manifests, flags);
  absl::Status reachable = cluster.CheckReachable();
  if (!reachable.ok()) return PrintError(reachable);
  if (verb == "diff") return Pass({flags.kubectl, "diff", "-f", "-"}, *manifests);
  absl::StatusOr<ClusterNeeds> needs = NeedsOf(*manifests);
  if (!needs.ok()) return PrintError(needs.status());
  if (verb == "status") {
    const int code = Pass({flags.kubectl, "get", "pods,pvc,events", "-n", needs->name_space, "-o", "wide"}, "");
    for (const std::string& one : Missing(cluster, *needs)) Print(absl::StrCat("missing  ", one, "\n"));
    return code;
  }
  if (!Confirmed(absl::StrCat("delete everything of ", flags.overlay, " but its volumes?"), flags.yes)) {
    Hint("error: nothing was deleted; --yes deletes without asking\n");
    return kExitUsage;
  }
  return Pass({flags.kubectl, "delete", "--ignore-not-found", "-f", "-"}, WithoutVolumes(*manifests));
}

}  // namespace rein::cli

// rein-roles: every service in one binary, chosen by the name it is called by.
//
//   rein-trainer --listen ...        through a link named rein-trainer
//   rein-roles trainer --listen ...

#include <cstdio>
#include <cstring>
#include <string>

// The main() of each role, renamed by the build (rein_role of common/cmake/ReinTargets.cmake).
int rein_controller_main(int argc, char** argv);
int rein_trainer_main(int argc, char** argv);
int rein_rollout_main(int argc, char** argv);
int rein_reference_main(int argc, char** argv);
int rein_reward_main(int argc, char** argv);

namespace {

struct Role {
  const char* name;
  int (*entry)(int, char**);
};

constexpr Role kRoles[] = {{"controller", &rein_controller_main},
                           {"trainer", &rein_trainer_main},
                           {"rollout", &rein_rollout_main},
                           {"reference", &rein_reference_main},
                           {"reward", &rein_reward_main}};

const Role* Find(const std::string& name) {
  for (const Role& role : kRoles) {
    if (name == role.name || name == std::string("rein-") + role.name) return &role;
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  const char* slash = std::strrchr(argv[0], '/');
  if (const Role* role = Find(slash == nullptr ? argv[0] : slash + 1))
    return role->entry(argc, argv);
  if (argc > 1) {
    if (const Role* role = Find(argv[1])) return role->entry(argc - 1, argv + 1);
  }
  std::fprintf(stderr, "usage: rein-roles controller|trainer|rollout|reference|reward [flags]\n");
  return 2;
}

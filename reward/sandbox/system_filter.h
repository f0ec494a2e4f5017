// InstallSystemFilter allows this process, and what it becomes, a list of system calls and no
// others.

#pragma once

#include <string>

namespace rein::reward::sandbox {

// Calls off the list fail with EPERM, and the returned listener is told of each
// (seccomp_unotify(2)); calls of another architecture kill the process. `alone`: also refuse what
// reaches other processes of this user or leaves the process group. Sets no_new_privs. -1 with
// errno on failure.
int InstallSystemFilter(bool alone);

// Takes one refusal from the listener and answers it; the call's name, "" when there was none.
std::string AnswerRefusal(int listener);

}  // namespace rein::reward::sandbox

// A plain page about the controller's jobs and actors, for a browser on the admin port.

#pragma once

#include <string>
#include <vector>

#include "rein/v1/controller.pb.h"

namespace rein::services {

std::string StatusPage(const std::vector<v1::Job>& jobs, const std::vector<v1::Actor>& actors,
                       const v1::BuildVersion& build);

}  // namespace rein::services

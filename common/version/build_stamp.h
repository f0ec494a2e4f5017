// What the build wrote down about itself (see write_stamp.cmake).

#pragma once

namespace rein::version {

extern const char kRelease[];
extern const char kGitHash[];
extern const char kFlavour[];

}  // namespace rein::version

# Writes OUTPUT with RELEASE, FLAVOUR and the git hash of SOURCE (REIN_REVISION of the environment, where there is no
# repository); touches it only when that changed,
# so that a commit costs one small compilation and the links of the programs.
execute_process(COMMAND git describe --always --dirty --abbrev=12 --exclude=*
  WORKING_DIRECTORY "${SOURCE}" OUTPUT_VARIABLE hash OUTPUT_STRIP_TRAILING_WHITESPACE
  ERROR_QUIET RESULT_VARIABLE failed)
if(failed AND NOT "$ENV{REIN_REVISION}" STREQUAL "")
  set(hash "$ENV{REIN_REVISION}")
elseif(failed)
  set(hash "unknown")
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" @ONLY CONTENT [[
#include "common/version/build_stamp.h"

namespace rein::version {

const char kRelease[] = "@RELEASE@";
const char kGitHash[] = "@hash@";
const char kFlavour[] = "@FLAVOUR@";

}  // namespace rein::version
]])

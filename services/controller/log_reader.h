// LogReader gives the lines of the log files in a folder: of one actor (its own file), or of one
// job (the lines of every file that name it). An actor's file has older parts, NAME.log.1, NAME.log.2, ...
// (common/telemetry/log.h): they are read as one, and a reader loses no line while the file is begun anew.
//
//   LogReader reader(folder, "trainer-0");
//   for (v1::LogLine& line : reader.ReadNew()) ...   // call again for what was written since
//
// Not thread-safe.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "rein/v1/controller.pb.h"

namespace rein::services {

class LogReader {
 public:
  // `folder` holds NAME.log for each actor.
  LogReader(std::string folder, std::string name);

  // True when an actor's file has this name.
  bool IsActor() const;
  // The folder has such a file, or a file with a line of such a job. At most the newest 8 MiB of each actor.
  std::vector<v1::LogLine> ReadNew();

 private:
  struct Position {
    uint64_t file = 0;  // its inode; 0: nothing was read yet
    uint64_t offset = 0;
  };
  void ReadFile(const std::string& path, const std::string& actor, std::vector<v1::LogLine>& lines);

  const std::string folder_;
  const std::string name_;
  std::map<std::string, Position> positions_;  // by path
};

}  // namespace rein::services

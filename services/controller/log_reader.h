// LogReader gives the lines of the log files in a folder: of one actor (its own file), or of one
// job (the lines of every file that name it).
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
  // The folder has such a file, or a file with a line of such a job.
  std::vector<v1::LogLine> ReadNew();

 private:
  void ReadFile(const std::string& path, const std::string& actor, std::vector<v1::LogLine>& lines);

  const std::string folder_;
  const std::string name_;
  std::map<std::string, uint64_t> offsets_;  // by path
};

}  // namespace rein::services

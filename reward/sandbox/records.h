// The words between the service and its launcher: length-prefixed texts in pairs of key and value.

#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace rein::reward::sandbox {

inline void PutText(std::string& out, std::string_view text) {
  const uint64_t size = text.size();
  out.append(reinterpret_cast<const char*>(&size), sizeof(size));
  out.append(text);
}

inline void PutRecord(std::string& out, std::string_view key, std::string_view value) {
  PutText(out, key);
  PutText(out, value);
}

// Takes a text off the front; nullopt when none is whole.
inline std::optional<std::string_view> TakeText(std::string_view& in) {
  uint64_t size = 0;
  if (in.size() < sizeof(size)) return std::nullopt;
  std::memcpy(&size, in.data(), sizeof(size));
  if (size > in.size() - sizeof(size)) return std::nullopt;
  std::string_view text = in.substr(sizeof(size), size);
  in.remove_prefix(sizeof(size) + size);
  return text;
}

}  // namespace rein::reward::sandbox

// CRC-32C (Castagnoli), as TFRecord files and the segment log use it.

#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace rein::services {

uint32_t Crc32c(absl::string_view bytes);

}  // namespace rein::services

#include "common/config/host_port.h"

#include <gtest/gtest.h>

#include "common/config/name.h"

namespace rein::config {
namespace {

TEST(HostPortTest, HostAndPortOfAnAddress) {
  EXPECT_EQ(HostOf("127.0.0.1:80"), "127.0.0.1");
  EXPECT_EQ(HostOf("rein-trainer-0.rein:7001"), "rein-trainer-0.rein");
  EXPECT_EQ(HostOf("[::1]:80"), "[::1]");
  EXPECT_EQ(HostOf("[::1]"), "[::1]");  // the colon of the address is none before a port
  EXPECT_EQ(HostOf("localhost"), "localhost");
  EXPECT_EQ(HostOf(":80"), "");
  EXPECT_EQ(HostOf(""), "");
  EXPECT_EQ(PortOf("127.0.0.1:80"), ":80");
  EXPECT_EQ(PortOf("[::1]:80"), ":80");
  EXPECT_EQ(PortOf("[::1]"), "");
  EXPECT_EQ(PortOf("localhost"), "");
}

TEST(HostPortTest, WhatAnAddressIs) {
  EXPECT_TRUE(IsHostPort("game:1"));
  EXPECT_TRUE(IsHostPort("game:65535"));
  for (const char* wrong : {"", "game", "game:", "game:0", "game:65536", "game:-1", "game:http", ":80"}) EXPECT_FALSE(IsHostPort(wrong)) << wrong;
}

TEST(NameTest, WhatANameIs) {
  EXPECT_TRUE(IsName("default"));
  EXPECT_TRUE(IsName("7b-second"));
  EXPECT_TRUE(IsName(std::string(63, 'a')));
  EXPECT_FALSE(IsName(std::string(64, 'a')));
  for (const char* wrong : {"", "-a", "A", "a b", "a/b", "a.b", "a_b", "\xc3\xa4"}) EXPECT_FALSE(IsName(wrong)) << wrong;
}

}  // namespace
}  // namespace rein::config

// For how long a neighbour is silent, with the time given by the test.
#include "storage/contact.h"

#include <gtest/gtest.h>

namespace fs3::storage {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kStart = 77'000 * kMs;

// Ticks of 50 ms until `until_ns`.
void run(Contact& contact, int64_t& now_ns, int64_t until_ns) {
  for (; now_ns < until_ns; now_ns += 50 * kMs) contact.tick(now_ns);
}

TEST(ContactTest, SilenceBeginsWithTheFirstQuestionAndEndsWithAnAnswer) {
  int64_t now_ns = kStart;
  Contact contact(now_ns);
  EXPECT_EQ(contact.silent_ns(now_ns), 0);
  run(contact, now_ns, kStart + 3000 * kMs);
  EXPECT_EQ(contact.silent_ns(now_ns), 3000 * kMs);
  contact.heard(now_ns);
  EXPECT_EQ(contact.silent_ns(now_ns), 0);
  run(contact, now_ns, kStart + 4000 * kMs);
  EXPECT_EQ(contact.silent_ns(now_ns), 1000 * kMs);
}

TEST(ContactTest, WhatThisProcessSleptThroughIsNoSilence) {
  int64_t now_ns = kStart;
  Contact contact(now_ns);
  run(contact, now_ns, kStart + 1000 * kMs);
  now_ns += 60'000 * kMs;
  EXPECT_LE(contact.silent_ns(now_ns), 1000 * kMs);  // asked before it ticks again
  contact.tick(now_ns);
  EXPECT_LE(contact.silent_ns(now_ns), 1000 * kMs);
  int64_t woke_ns = now_ns;
  run(contact, now_ns, woke_ns + 500 * kMs);
  EXPECT_GE(contact.silent_ns(now_ns), 1400 * kMs);
  EXPECT_LE(contact.silent_ns(now_ns), 1500 * kMs);
}

TEST(ContactTest, AnAnswerRightAfterTheSleepCounts) {
  int64_t now_ns = kStart;
  Contact contact(now_ns);
  run(contact, now_ns, kStart + 1000 * kMs);
  now_ns += 60'000 * kMs;
  contact.heard(now_ns);
  contact.tick(now_ns);
  EXPECT_EQ(contact.silent_ns(now_ns), 0);
  int64_t woke_ns = now_ns;
  run(contact, now_ns, woke_ns + 2000 * kMs);
  EXPECT_EQ(contact.silent_ns(now_ns), 2000 * kMs);
}

}  // namespace
}  // namespace fs3::storage

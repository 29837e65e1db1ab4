// Bounds of the transport, with their reasons. Frame sizes are in wire/frame.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fs3::net {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kSecond = 1'000'000'000;

// One peer may keep this much in a server; then its socket is not read.
constexpr size_t kConnectionRequestsMax = 256;
constexpr size_t kConnectionBytesMax = size_t{64} << 20;
// All peers together; beyond it a request is answered BUSY and its payload is not kept.
constexpr size_t kServerBytesMax = size_t{1} << 30;

constexpr size_t kConnectionsMax = 4096;
constexpr size_t kConnectionsPerAddressMax = 256;

// Calls that wait in one channel: what a server takes from one connection.
constexpr size_t kChannelCallsMax = kConnectionRequestsMax;

constexpr int64_t kDefaultDeadlineNs = 10 * kSecond;
// A connection attempt, hello included.
constexpr int64_t kConnectTimeoutNs = 5 * kSecond;
// Between attempts after a failure: doubled each time. Calls wait for the next attempt, which also
// paces callers who retry at once.
constexpr int64_t kReconnectDelayMinNs = 5 * kMillisecond;
constexpr int64_t kReconnectDelayMaxNs = 100 * kMillisecond;

// Against peers who hold a connection without using it: the hello must come within the first bound;
// a frame that is still incomplete after the second must have come at kFrameBytesPerSecondMin or
// more; a peer that takes no reply bytes for the third is cut off.
constexpr int64_t kHelloTimeoutNs = 5 * kSecond;
constexpr int64_t kFrameTimeoutNs = 10 * kSecond;
constexpr uint64_t kFrameBytesPerSecondMin = 64 << 10;
constexpr int64_t kStalledWriteTimeoutNs = 30 * kSecond;

// Bytes of socket buffer in each direction (the kernel doubles it). Loopback, 1 MiB reads, one run
// each: 256 KiB gave 3.2 GiB/s over TCP, 1 MiB 3.8, 5 MiB 4.0; over Unix sockets 4.4, 5.8 and 5.8.
// Beyond 1 MiB there is little to gain for the memory that every connection may then take.
constexpr int kSocketBufferBytes = 1 << 20;
// A peer whose host vanished is noticed after this long without an acknowledgement.
constexpr int kTcpUserTimeoutMs = 5000;

}  // namespace fs3::net

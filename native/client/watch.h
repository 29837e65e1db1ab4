// WATCH: keeps this client's session for leases, and hears of recalls (fs3/meta/leases.py has the
// rules). One call is always on its way; after each answer the next one leaves at once.
//
// The session is counted from before a WATCH was sent, on now_ns(), so a machine that was
// suspended finds it over. An acknowledgement leaves with the next WATCH when the holder has obeyed
// at once, else as a call of its own as soon as it has. A holder that has not obeyed after
// kObeyNs counts as obedient: that is how long its kernel believes a name, or an inode it has just
// been told of, without asking again; see native/fuse/leases.h for why it can come to that.
#pragma once

#include <cstdint>
#include <memory>

#include "client/client.h"

namespace fs3::client {

class Core;

constexpr int64_t kObeyNs = 1'100'000'000;

// Also, every kPublishNs: what was written here and not settled is settled, so that others see a
// file grow while nobody syncs it.
constexpr int64_t kPublishNs = 1'000'000'000;

// What a kernel was told by a process before this one, no new session may leave out as long as
// this: fs3/meta/leases.py SESSION_S.
constexpr int64_t kSessionNs = 5'000'000'000;

// Until the client closes. `holder` outlives the client. `formerly`: the client whose session this
// one continues, with everything that was granted and recalled in it; empty: none.
void start_watch(std::shared_ptr<Core> core, LeaseHolder& holder, std::string formerly);

}  // namespace fs3::client

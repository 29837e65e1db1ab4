// Metadata calls: which server, how often, until when.
//
// A call is sent to the server that answered last. When it cannot be reached, is shutting down or
// does not serve, the next address is asked; when it is busy, the same one after a pause; when it
// says nothing, the next one too, sooner when there is another and less soon each time. Every
// attempt carries the same bytes, hence the same request id, so a mutating request that was applied
// by an attempt whose answer got lost is answered from the service's record and not applied twice.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "client/client.h"

namespace fs3::client {

class Core;
class Lane;

// Where the metadata services answer: those named to the client and those that routing knows, less
// those that the manager declared dead (unless that leaves none).
std::vector<std::string> meta_addresses(const Core& core);

// `body` complete with header. `done` runs on the lane's thread, also when it fails; a deadline
// that passed is kTimedOut (the outcome is unknown), a closed client ESHUTDOWN.
void send_meta_call(std::shared_ptr<Core> core, Lane& lane, uint16_t method, std::string body,
                    int64_t deadline_ns, MetaCallback done);

// Prepends fs3.meta.Header (field 1) with the name of the call. kBadRequest when `caller` does not
// parse (an empty caller would be root).
Result<std::string> with_header(const Client::CallName& name, const std::string& caller,
                                uint32_t umask, const std::string& body);

// The identity of this process, as a serialized fs3.meta.Caller: for calls that no user asked for.
std::string process_caller();

// As send_meta_call with the process as caller and the client's metadata deadline.
void send_own_meta_call(std::shared_ptr<Core> core, Lane& lane, uint16_t method,
                        const std::string& body, MetaCallback done);

}  // namespace fs3::client

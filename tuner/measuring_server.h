// The measuring process: owns the GPU for a tuner (tuner/measuring_process.h) that asks it, over a
// socket, what measuring_messages.h knows.
//
// A process of its own, so that a kernel that hangs, or leaves the context unusable, costs itself.
#pragma once

namespace w4tune {

// The command of w4tune that calls it, and where that finds its end of the socket.
inline constexpr const char* kMeasuringCommand = "measure-worker";
inline constexpr int kMeasuringSocket = 3;

// Serves until the tuner closes the socket; what main() returns. The process dies with the thread
// that started it, and leaves Ctrl-C to it. Throws Error{kInvalidArgument} where nobody has
// started it so.
int serve_measuring();

}  // namespace w4tune

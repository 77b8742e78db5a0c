{
  # Libraries are found by pkg-config; the part of one that is absent is left out (src/features.ts says so).
  "variables": {
    "have_lz4%": "<!(pkg-config --exists liblz4 && echo 1 || echo 0)",
    "have_xxhash%": "<!(pkg-config --exists libxxhash && echo 1 || echo 0)",
    # The headers only: libvirt itself is loaded when it is first used.
    "have_libvirt%": "<!(pkg-config --exists 'libvirt >= 7.2' 'libvirt-qemu >= 7.2' && echo 1 || echo 0)",
    "sanitize%": "<!(echo ${SANITIZE:-0})"
  },
  "targets": [
    {
      "target_name": "vmferry",
      "sources": [
        "cc/addon.cc",
        "cc/arguments.cc",
        "cc/descriptor.cc",
        "cc/frame_format.cc",
        "cc/frame_lane.cc",
        "cc/interleave.cc",
        "cc/job.cc",
        "cc/job_thread.cc",
        "cc/kernels.cc",
        "cc/lane_mailbox.cc",
        "cc/lane_reader.cc",
        "cc/lane_shared.cc",
        "cc/lane_writer.cc",
        "cc/local_socket.cc",
        "cc/packet_socket.cc",
        "cc/page_codec.cc",
        "cc/page_scan.cc",
        "cc/ram_records.cc",
        "cc/settle.cc"
      ],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": [
        "NAPI_VERSION=8",
        "NAPI_CPP_EXCEPTIONS",
        "NODE_ADDON_API_DISABLE_DEPRECATED",
        # In a thread that is being terminated nothing can be thrown at JavaScript: without this the process aborts.
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
      ],
      "cflags!": ["-fno-exceptions", "-Wno-unused-parameter"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
      "cflags": ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden"],
      "cflags_cc": ["-std=c++17", "-fexceptions"],
      "conditions": [
        ["have_lz4==1", {
          "defines": ["VMFERRY_LZ4"],
          "cflags": ["<!@(pkg-config --cflags liblz4)"],
          "libraries": ["<!@(pkg-config --libs liblz4)"]
        }],
        ["have_xxhash==1", {
          "defines": ["VMFERRY_XXHASH"],
          "cflags": ["<!@(pkg-config --cflags libxxhash)"],
          "libraries": ["<!@(pkg-config --libs libxxhash)"]
        }],
        ["have_libvirt==1", {
          "defines": ["VMFERRY_LIBVIRT"],
          "cflags": ["<!@(pkg-config --cflags libvirt)"],
          "libraries": ["-ldl"],
          "sources": [
            "cc/libvirt/auth.cc",
            "cc/libvirt/binding.cc",
            "cc/libvirt/call_pool.cc",
            "cc/libvirt/calls.cc",
            "cc/libvirt/connection.cc",
            "cc/libvirt/domain.cc",
            "cc/libvirt/domain_calls.cc",
            "cc/libvirt/event_loop.cc",
            "cc/libvirt/events.cc",
            "cc/libvirt/failure.cc",
            "cc/libvirt/host_calls.cc",
            "cc/libvirt/library.cc",
            "cc/libvirt/lookup_calls.cc",
            "cc/libvirt/mailbox.cc",
            "cc/libvirt/migration_calls.cc",
            "cc/libvirt/qemu_calls.cc",
            "cc/libvirt/statistics_calls.cc",
            "cc/libvirt/storage_calls.cc",
            "cc/libvirt/typed_parameters.cc"
          ]
        }],
        ["sanitize==1", {
          "cflags": [
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer"
          ],
          "ldflags": ["-fsanitize=address,undefined"]
        }]
      ]
    }
  ]
}

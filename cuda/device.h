/* What a kernel library whose arrays lie in a device's own memory offers beside llm.h's kernels.
 *
 * Everything is queued on one stream in the order of the calls and may still be running when a call
 * returns. Status: 0, or the code of the first error since the last status was asked for, which
 * device_message words. Nothing here prints or exits. */
#ifndef LLM_DEVICE_H
#define LLM_DEVICE_H

/* Takes the GPU of that index (0: the first that CUDA_VISIBLE_DEVICES leaves) for this process, with
 * cuBLASLt from that file: 0-terminated text. Returns a status. Called once, before all else. */
int device_open(int index, const char *cublaslt);

/* Writes the name of the GPU, or the words for the last status that was not 0: at most `size` bytes
 * with the 0 at the end. */
void device_name(char *out, int size);
void device_message(char *out, int size);

/* Bytes of memory the GPU has, and has free. */
i64 device_memory(int index);
i64 device_memory_free(int index);

/* Memory on the device, aligned to 512 bytes, zeroed; 0 where there is not enough. */
i64 device_allocate(i64 bytes);
int device_free(i64 address);

/* Copies between the host's memory and the device's. An upload's source may be reused on return; a
 * download waits until everything before it is done. Both return a status. */
int device_upload(i64 to, const void *from, i64 bytes);
int device_download(void *to, i64 from, i64 bytes);

/* Waits until everything queued is done; returns the status. */
int device_wait(int spin);

/* From device_record to device_recorded, calls are recorded instead of run; what was recorded becomes
 * the graph of that number (0..15, replacing an older one), which device_replay queues as one. All
 * return a status. */
int device_record(int graph);
int device_recorded(int graph);
int device_replay(int graph);

#endif

/* What a kernel library whose arrays lie in a device's own memory offers beside llm.h's kernels.
 *
 * Everything is queued on one stream in the order of the calls and may still be running when a call
 * returns. Status: 0, or the code of the first error since a status was last returned, which
 * device_message words. Nothing here prints or exits. */
#ifndef LLM_DEVICE_H
#define LLM_DEVICE_H

/* The GPUs that CUDA_VISIBLE_DEVICES leaves, or -1 with a message: no driver, an old one, or an old GPU
 * as the first. May be asked before device_open. */
int device_count(void);

/* Takes the GPU of that index for this process, with the cuBLASLt of that file: 0-terminated text.
 * Returns a status. Comes before all that follows; once it has succeeded, more calls do nothing. */
int device_open(int index, const char *cublaslt);

/* Writes the GPU's name, its address on the bus, or the words for the last status that was not 0: at
 * most `size` bytes with the 0 at the end. */
void device_name(char *out, int size);
void device_bus(char *out, int size);
void device_message(char *out, int size);

/* Bytes of memory that the GPU has, and has free. */
i64 device_memory(void);
i64 device_memory_free(void);

/* CUDA's version as the driver has it: 1000·major + 10·minor. */
int device_driver(void);

/* Whether the GPU's tensor cores multiply 8-bit floats. */
int device_fp8(void);

/* Memory on the device, aligned to 256 bytes or more, zeroed; 0 where there is not enough. */
i64 device_allocate(i64 bytes);
int device_free(i64 address);

/* Copies between the host's memory and the device's, or within that. An upload's source may be reused
 * on return; a download waits until everything before it is done. All return a status. */
int device_upload(i64 to, const void *from, i64 bytes);
int device_download(void *to, i64 from, i64 bytes);
int device_copy(i64 to, i64 from, i64 bytes);

/* A download that waits for nothing: at most DEVICE_FETCH_BYTES bytes as they are when everything
 * before is done. Returns a number, or -1; device_fetched(number) waits for that copy alone, writes
 * the bytes, and returns a status. The last DEVICE_FETCHES numbers are valid. */
#define DEVICE_FETCH_BYTES 256
#define DEVICE_FETCHES 16
int device_fetch(i64 from, i64 bytes);
int device_fetched(void *to, int number, i64 bytes);

/* Writes the architectures that the kernels were compiled for, "800,900". */
void device_built(char *out, int size);

/* Waits until everything queued is done; the status. device_status does not wait, and knows only of
 * what has failed by now. */
int device_wait(void);
int device_status(void);

/* Between the two, calls are recorded instead of run. device_recorded returns the graph that they
 * make, or 0; device_replay queues it as one, and returns a status. */
int device_record(void);
i64 device_recorded(void);
int device_replay(i64 graph);
void device_forget(i64 graph);

/* Whether products of f32 may round what they multiply to TF32: 0 until set. */
void device_tf32(int on);

/* Which of cuBLASLt's algorithms makes a product is chosen by the clock when it is first asked for
 * outside of a recording, and may change the bits of its result. What was chosen so far, to be kept:
 * returns the bytes, which are written if `size` is not less. What was kept is taken from here on,
 * instead of timing and of what was chosen before: returns how many products were told, or -1 where
 * it was kept of another GPU, or by another version of cuBLASLt or of this library. */
int product_plans_save(void *out, int size);
int product_plans_load(const void *in, int size);

/* From here on a GPU's own kernel makes all products that it takes (on), or those that it makes faster
 * than cuBLASLt does (off, as at the beginning). */
void product_prefer_own(int on);

/* Writes a table of the products asked for so far, and of who makes them and how fast, cut to `size`
 * bytes with the 0 at the end; returns the bytes of all of it, without the 0. */
int product_report(char *out, int size);

#endif

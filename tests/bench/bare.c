/*
 * What kvmscen is measured against: the same guests, built and run by C alone.
 *
 *   bare FILE          builds, runs and destroys the VM of every guest in FILE, in this process
 *   bare FILE N        only guest N, as a test program of a user's own would
 *   bare --tables AT   the bytes of the engine's slot, to be compared with kvmscen's own
 *
 * Each VM has the guest's slot and the slot with GDT and page tables, the host's CPUID, and starts in long mode. The three
 * exits (an MMIO write, OUT, HLT) are compared with what FILE says; a guest may store more than once, then each value is one more. Exit status 0 if all are as they should be.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TABLES_SIZE 0x8000

struct guest { /* guests.RECORD */
	uint64_t slot, size, entry, tables, mmio, value;
	uint16_t port, pad;
	uint32_t out, length, more;
	uint8_t code[192];
} __attribute__((packed));

static int kvm, run_size, table_slot;
static struct kvm_cpuid2 *cpuid;
static uint64_t tables[TABLES_SIZE / 8], tables_at;

static int call(int fd, unsigned long request, void *argument, const char *name)
{
	int result = ioctl(fd, request, argument);

	if (result < 0)
		err(1, "%s", name);
	return result;
}

static void make_tables(uint64_t at)
{
	static const uint64_t gdt[] = {0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF, 0x00AF9B000000FFFF};

	tables[0] = (at + 0x1000) | 0x63;
	for (uint64_t gib = 0; gib < 4; gib++) {
		tables[512 + gib] = (at + 0x2000 + 0x1000 * gib) | 0x63;
		for (uint64_t n = 0; n < 512; n++)
			tables[1024 + 512 * gib + n] = ((gib << 30) + (n << 21)) | 0xe3;
	}
	memcpy(tables + 512 * 6, gdt, sizeof(gdt));
	tables_at = at;
}

static void start(void)
{
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		err(1, "/dev/kvm");
	run_size = call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
	table_slot = call(kvm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_NR_MEMSLOTS, "KVM_CHECK_EXTENSION") - 1;
	cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	cpuid->nent = 256;
	call(kvm, KVM_GET_SUPPORTED_CPUID, cpuid, "KVM_GET_SUPPORTED_CPUID");
}

static void *slot(int vm, int number, uint64_t gpa, uint64_t size)
{
	void *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kvm_userspace_memory_region region = {number, 0, gpa, size, (uint64_t)at};

	if (at == MAP_FAILED)
		err(1, "mmap");
	call(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	return at;
}

static void boot(int vcpu, const struct guest *g)
{
	struct kvm_segment code = {0, 0xffffffff, 0x08, 11, 1, 0, 0, 1, 1, 1}, data = {0, 0xffffffff, 0x10, 3, 1, 0, 1, 1, 0, 1};
	struct kvm_regs regs = {.rip = g->entry, .rflags = 2};
	struct kvm_sregs sregs;

	call(vcpu, KVM_SET_CPUID2, cpuid, "KVM_SET_CPUID2");
	call(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.idt.base = sregs.idt.limit = 0;
	sregs.gdt.base = g->tables + 0x6000;
	sregs.gdt.limit = 5 * 8 - 1;
	sregs.cr0 = 0x80000033;
	sregs.cr3 = g->tables;
	sregs.cr4 = 0x620;
	sregs.efer = 0x500;
	call(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	call(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

static int run(int vcpu, struct kvm_run *state, const struct guest *g)
{
	for (uint64_t n = 0; n <= g->more; n++) {
		uint64_t value = g->value + n;

		call(vcpu, KVM_RUN, 0, "KVM_RUN");
		if (state->exit_reason != KVM_EXIT_MMIO || !state->mmio.is_write || state->mmio.len != 8 ||
		    state->mmio.phys_addr != g->mmio || memcmp(state->mmio.data, &value, 8))
			return 1;
	}
	call(vcpu, KVM_RUN, 0, "KVM_RUN");
	if (state->exit_reason != KVM_EXIT_IO || state->io.direction != KVM_EXIT_IO_OUT || state->io.size != 4 ||
	    state->io.port != g->port || memcmp((char *)state + state->io.data_offset, &g->out, 4))
		return 2;
	call(vcpu, KVM_RUN, 0, "KVM_RUN");
	return state->exit_reason == KVM_EXIT_HLT ? 0 : 3;
}

static int one(const struct guest *g)
{
	int vm = call(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM"), vcpu, wrong;
	struct kvm_run *state;
	void *own, *memory;

	if (tables_at != g->tables)
		make_tables(g->tables);
	own = slot(vm, table_slot, g->tables, TABLES_SIZE);
	memcpy(own, tables, TABLES_SIZE);
	memory = slot(vm, 0, g->slot, g->size);
	memcpy(memory, g->code, g->length);
	vcpu = call(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	state = mmap(0, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (state == MAP_FAILED)
		err(1, "mmap of the vCPU");
	boot(vcpu, g);
	wrong = run(vcpu, state, g);
	if (wrong)
		warnx("the guest at %#lx: exit %d is wrong: %u", (long)g->entry, wrong, state->exit_reason);
	munmap(state, run_size);
	close(vcpu);
	close(vm);
	munmap(memory, g->size);
	munmap(own, TABLES_SIZE);
	return wrong != 0;
}

int main(int argc, char **argv)
{
	struct guest guest, *guests;
	struct stat info;
	int fd, wrong = 0;

	if (argc == 3 && !strcmp(argv[1], "--tables")) {
		make_tables(strtoull(argv[2], 0, 0));
		return fwrite(tables, TABLES_SIZE, 1, stdout) != 1;
	}
	fd = argc < 2 ? -1 : open(argv[1], O_RDONLY);
	if (fd < 0 || fstat(fd, &info))
		err(1, "the file of guests");
	start();
	if (argc == 3) {
		if (pread(fd, &guest, sizeof(guest), atol(argv[2]) * sizeof(guest)) != sizeof(guest))
			errx(1, "there is no guest %s", argv[2]);
		return one(&guest);
	}
	guests = mmap(0, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (guests == MAP_FAILED)
		err(1, "mmap of the file");
	for (long n = 0; n < info.st_size / (long)sizeof(guest); n++)
		wrong |= one(guests + n);
	return wrong;
}

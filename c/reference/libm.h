/* What the reference takes from libm, declared here because the machine may lack libc's headers. */
#ifndef LLM_REFERENCE_LIBM_H
#define LLM_REFERENCE_LIBM_H

double cos(double x);
double exp(double x);
double fma(double x, double y, double z);
double log(double x);
double log1p(double x);
double pow(double x, double y);
double sin(double x);
double sqrt(double x);
double tanh(double x);
float fmaf(float x, float y, float z);
float sqrtf(float x);

#endif
